"""`histream farm` with workers that wait in the middle of a shot for as long as the test holds them.

So no moment passes before the test has seen it, however slow a busy machine is. `main` stands in for the command; the
workers import `make_shot` from here.
"""

import os
import time
from contextlib import contextmanager
from pathlib import Path

from patient_ray import be_patient

from histream_core import cli
from histream_core.cli.verbs import farm

PLACE = "HISTREAM_TEST_FARM"
"""An environment variable that all processes of one test have: its folder."""


def main():
    be_patient()
    farm.FarmVerbs.make = staticmethod(make_shot)
    return cli.main()


def make_shot(shot, folder, watch, part=None):
    """Make a shot or part, and wait as soon as a chunk is made by this attempt, or only the last one is left."""

    @contextmanager
    def watch_and_wait(journal):
        before, last = journal.finished, (part.stop if part else journal.manifest.num_chunks) - 1
        with watch(journal) as report:

            def report_and_wait(progress):
                report(progress)
                if before < journal.finished or journal.finished >= last:
                    wait_while_held()

            yield report_and_wait

    farm.make_shot(shot, folder, watch_and_wait, part)


def hold(place):
    """Let workers wait from now on."""
    (place / "waiting").mkdir()


def let_go(place):
    """Let all workers go on to the end."""
    (place / "waiting").rename(place / "waited")


def waiting(place):
    """Numbers of the processes that wait or have waited, dead ones too."""
    return [int(number) for number in os.listdir(place / "waiting")]


def wait_while_held():
    """Say that this process waits, by a file of its number, until `let_go`."""
    folder = Path(os.environ[PLACE]) / "waiting"
    while folder.exists():
        try:
            (folder / str(os.getpid())).touch()
        except FileNotFoundError:  # let go in this moment
            return
        time.sleep(0.02)
