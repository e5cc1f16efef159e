"""Tests of the schedule."""

import unittest
from itertools import pairwise

from schedule import SECONDS, schedule


class Schedule(unittest.TestCase):
    def test_the_seed_determines_it(self):
        self.assertEqual(schedule(7, 300), schedule(7, 300))
        self.assertNotEqual(schedule(7, 300), schedule(8, 300))

    def test_every_kind_comes_and_all_end_in_time(self):
        for seed in range(50):
            faults = [fault for stream in schedule(seed, 300) for fault in stream]
            self.assertEqual({fault.kind for fault in faults}, set(SECONDS), seed)
            self.assertLess(max(fault.at + fault.seconds for fault in faults), 300, seed)

    def test_faults_of_a_stream_do_not_overlap(self):
        for stream in schedule(7, 3000):
            for before, after in pairwise(stream):
                self.assertGreater(after.at, before.at + before.seconds)


if __name__ == "__main__":
    unittest.main()
