"""The simulator of workers, against schedules that are told by hand."""

import pytest

from histream_core.parallel.events import Job, finish_times


def test_jobs_of_one_worker_follow_each_other_and_others_run_beside_them():
    assert finish_times([Job(0, 2), Job(0, 3), Job(1, 4)]) == [2, 5, 4]


def test_a_job_waits_for_what_it_needs_and_for_its_way():
    assert finish_times([Job(0, 2), Job(1, 1, ((0, 0.5),)), Job(0, 1, ((1, 0.25), (0, 0)))]) == [2, 3.5, 4.75]
    assert finish_times([Job(0, 2), Job(1, 3), Job(2, 1, ((0, 5), (1, 0)))]) == [2, 3, 8]


def test_of_the_jobs_that_can_begin_the_first_listed_is_first():
    """Job 1 can begin at 1 and job 2 at once: the worker begins job 2, and does job 1 before job 3."""
    jobs = [Job(1, 1), Job(0, 2, ((0, 0),)), Job(0, 3), Job(0, 1)]
    assert finish_times(jobs) == [1, 5, 3, 6]


def test_jobs_that_take_no_time_are_done():
    assert finish_times([Job(0, 0), Job(0, 0, ((0, 0),)), Job(1, 1, ((1, 0),))]) == [0, 0, 1]


def test_jobs_that_wait_for_each_other_are_refused():
    with pytest.raises(ValueError, match="wait for each other"):
        finish_times([Job(0, 1, ((1, 0),)), Job(0, 1, ((0, 0),))])
