"""Handling of SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal)."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
# Signals that were ignored at the start, by nohup or in the background, stay ignored.
_HEARD = tuple(one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN)
SAVING = "stopping: saving what was learned, please wait"


class StopRequest:
    """Whether a signal has requested to stop; a training checks this at every step."""

    def __init__(self, notice: str = SAVING) -> None:
        self.made = False
        self._notice = f"\n{notice}\n".encode()
        self._raises = False

    def __call__(self) -> bool:
        """Whether a signal was received."""
        return self.made

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within this block, which has nothing to save, a signal raises KeyboardInterrupt.

        So does one that came too late to stop what was before it.
        """
        self._raises = True
        try:
            if self.made:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        first, self.made = not self.made, True
        if self._raises:
            raise KeyboardInterrupt
        if first:
            os.write(2, self._notice)  # print is not reentrant


def interrupt_on_signals() -> None:
    """Make every stopping signal raise KeyboardInterrupt, like Ctrl-C."""
    for number in _HEARD:
        signal.signal(number, signal.default_int_handler)


def ignore_signals() -> None:
    """Ignore all further signals while a command is ending."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_on_signals(notice: str = SAVING) -> Iterator[StopRequest]:
    """Within this block a signal only records a request to stop, so that it interrupts no work.

    The first signal prints the notice. Further signals have no effect, because saving is already
    under way. If a signal was received, the command is ending, and signals stay ignored after the
    block.
    """
    request = StopRequest(notice)
    before = {number: signal.signal(number, request.note) for number in _HEARD}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if request.made else handler)
