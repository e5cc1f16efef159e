"""Tests of the checker: each plants a defect in a result without one."""

import unittest

from checker import Record, Row, broken_promises, count, gaps

ROWS = [Row(f"{key}{revision}", key, revision) for key in "ab" for revision in (1, 2, 3)]
RECORDS = [Record(row.id, f"event-{row.id}") for row in ROWS]


class Checker(unittest.TestCase):
    def broken(self, records, **expected):
        counts = count(ROWS, records)
        for name, value in expected.items():
            self.assertEqual(getattr(counts, name), value, name)
        return broken_promises(counts)

    def test_a_good_result(self):
        self.assertEqual(self.broken(RECORDS, committed=6, lost=0, reordered=0, duplicates=0), [])

    def test_a_lost_row(self):
        self.assertEqual(len(self.broken(RECORDS[:-1], lost=1)), 1)

    def test_a_lost_row_in_the_middle_is_no_disorder(self):
        self.assertEqual(len(self.broken(RECORDS[:1] + RECORDS[2:], lost=1, reordered=0)), 1)

    def test_reordered_rows_of_a_key(self):
        records = [RECORDS[1], RECORDS[0], *RECORDS[2:]]
        self.assertEqual(len(self.broken(records, lost=0, reordered=1)), 1)

    def test_each_late_row_counts(self):
        records = [RECORDS[2], RECORDS[0], RECORDS[1], *RECORDS[3:]]
        self.broken(records, reordered=2)

    def test_keys_may_overtake_each_other(self):
        self.assertEqual(self.broken(RECORDS[3:] + RECORDS[:3], reordered=0), [])

    def test_a_duplicate_with_the_same_id(self):
        self.assertEqual(
            self.broken([*RECORDS, RECORDS[0]], duplicates=1, other_id=0, reordered=0), []
        )

    def test_a_duplicate_with_another_id(self):
        broken = self.broken([*RECORDS, Record("a1", "other")], duplicates=1, other_id=1)
        self.assertEqual(len(broken), 1)

    def test_a_record_of_a_row_that_was_rolled_back(self):
        self.assertEqual(
            len(self.broken([*RECORDS, Record("c1", "x")], uncommitted=1, duplicates=0)), 1
        )

    def test_an_empty_run(self):
        self.assertEqual(len(broken_promises(count([], []))), 1)

    def test_gaps(self):
        self.assertEqual(gaps(ROWS), [])
        self.assertEqual(gaps(ROWS[1:]), ["a"])
        self.assertEqual(gaps([ROWS[0], ROWS[2]]), ["a"])


if __name__ == "__main__":
    unittest.main()
