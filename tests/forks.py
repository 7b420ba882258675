"""Child processes of the tests, forked: what this process has imported need not be imported again."""

import gc
import os
import signal
from collections.abc import Callable
from typing import NoReturn, TextIO


class Child:
    """A fork that runs `work(say)`, with a text file `say` for what it tells; `said` has its lines here.

    It ends with the status that `work` returns, or with 1 and the error in a line.
    """

    def __init__(self, work: Callable[[TextIO], int | None]) -> None:
        read, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            gc.disable()  # a decoder that the child frees would wait for threads that it does not have
            os.close(read)
            _work_and_exit(work, write)
        os.close(write)
        self.said = os.fdopen(read)

    def wait(self) -> int:
        """Its exit status, or the negative number of the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """End it as a power cut would."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()


def _work_and_exit(work: Callable[[TextIO], int | None], write: int) -> NoReturn:
    status = 1
    with os.fdopen(write, "w", buffering=1) as say:
        try:
            status = work(say) or 0
        except BaseException as error:
            say.write(f"{type(error).__name__}: {error}\n")
    os._exit(status)
