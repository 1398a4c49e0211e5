#!/usr/bin/env python3
"""A short walk through everything, for sanitized builds: a selection of the other files' tests."""

import sys
import unittest

sys.dont_write_bytecode = True
import test_again  # noqa: E402
import test_answers  # noqa: E402
import test_crash  # noqa: E402
import test_drain  # noqa: E402
import test_frames  # noqa: E402
import test_large  # noqa: E402
import test_provider  # noqa: E402
import test_tools  # noqa: E402

CHOSEN = (
    (test_answers.Answers, "test_gsm8k_all_prompts_with_64_in_flight"),
    (test_answers.Answers, "test_short_lines"),
    (test_again.Again, "test_same_job_twice_makes_no_second_call"),
    (test_drain.Drain, "test_both_at_once"),
    (test_drain.Drain, "test_second_sigterm_stops_at_once"),
    (test_provider.ProviderFaults, "test_called_again_until_it_succeeds"),
    (test_provider.ProviderFaults, "test_hanging"),
    (test_crash.Crash, "test_broker_killed_with_a_queue_on_disk"),
    (test_crash.Crash, "test_worker_killed_repeats_its_running_calls_alone"),
    (test_frames.Frames, "test_before_hello"),
    (test_frames.Frames, "test_bad_tasks"),
    (test_frames.Frames, "test_damaged_frames"),
    (test_large.Large, "test_bodies_of_all_sizes_together"),
    (test_tools.Ctl, "test_cancel_a_job"),
    (test_tools.Ctl, "test_show_jobs_and_purge"),
    (test_tools.Http, "test_metrics"),
)


def load_tests(_loader, _found, _pattern):
    return unittest.TestSuite(case(name) for case, name in CHOSEN)


if __name__ == "__main__":
    unittest.main(verbosity=2)
