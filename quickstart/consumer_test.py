"""The judge finds what it is there to find."""

import unittest

from consumer import Record, Verdict, event_of, judge, quantile, waits


def came(*versions, key="a"):
    return [Record(arrived=float(n), key=key, version=v, written=float(n) - 0.5) for n, v in enumerate(versions)]


class Judge(unittest.TestCase):
    def test_verdicts(self):
        for name, committed, records, expected in [
            ("all in order", {"a": 3}, came(1, 2, 3), Verdict(0, 0, 0, 0)),
            ("one is missing", {"a": 3}, came(1, 3), Verdict(1, 0, 0, 0)),
            ("the last is missing", {"a": 3}, came(1, 2), Verdict(1, 0, 0, 0)),
            ("nothing came", {"a": 3, "b": 1}, [], Verdict(4, 0, 0, 0)),
            ("two are swapped", {"a": 3}, came(2, 1, 3), Verdict(0, 1, 0, 0)),
            ("one came twice", {"a": 3}, came(1, 2, 1, 2, 3), Verdict(0, 0, 2, 0)),
            ("twice and late", {"a": 3}, came(1, 2, 3, 2), Verdict(0, 0, 1, 0)),
            ("rolled back", {"a": 2}, came(1, 2, 3), Verdict(0, 0, 0, 1)),
            ("unknown key", {"a": 1}, came(1) + came(1, key="b"), Verdict(0, 0, 0, 1)),
            ("keys are independent", {"a": 1, "b": 2}, came(1, 2, key="b") + came(1), Verdict(0, 0, 0, 0)),
        ]:
            with self.subTest(name):
                self.assertEqual(judge(committed, records), expected)

    def test_events_of_a_broken_time_are_no_quiet_ones(self):
        quiet, every = waits(came(1, 2, 3, 3), [(0.4, 0.6)])
        self.assertEqual((len(quiet), len(every)), (2, 3))

    def test_a_payload_that_nobody_wrote_is_not_committed(self):
        for payload in ("", "null", "[]", "{}", '{"version": "x", "written": 1}', "{"):
            self.assertEqual(event_of(payload)[0], 0, payload)
        self.assertEqual(judge({"a": 1}, came(1, 0)), Verdict(0, 0, 0, 1))

    def test_quantiles(self):
        values = [float(n) for n in range(1, 101)]
        self.assertEqual([quantile(values, share) for share in (1, 50, 99, 100)], [1, 50, 99, 100])
        self.assertEqual(quantile([7.0], 50), 7.0)


if __name__ == "__main__":
    unittest.main()
