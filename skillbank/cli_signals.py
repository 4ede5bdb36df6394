"""Ctrl-C, SIGTERM and a closed terminal: what they do to a command, at any moment."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
# What the command was started without, by nohup or in the background, it goes on without.
_HEARD = tuple(one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN)
SAVING = "stopping: what was learned is being saved, please wait"


class StopRequest:
    """Whether the user wants a training to stop; asked at every step of it."""

    def __init__(self, notice: str = SAVING) -> None:
        self.made = False
        self._notice = f"\n{notice}\n".encode()
        self._raises = False

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.made

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """In this block there is nothing to lose: a signal ends it by KeyboardInterrupt."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        first, self.made = not self.made, True
        if self._raises:
            raise KeyboardInterrupt
        if first:
            os.write(2, self._notice)  # print may be in the middle of a line of its own


def interrupt_on_signals() -> None:
    """Let every stopping signal end a command as Ctrl-C does, by KeyboardInterrupt."""
    for number in _HEARD:
        signal.signal(number, signal.default_int_handler)


def ignore_signals() -> None:
    """Let no further signal disturb a command that is ending."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_on_signals(notice: str = SAVING) -> Iterator[StopRequest]:
    """In this block a signal is only a request, so that nothing is cut in half by one.

    A second signal changes nothing: what was learned is being written already. Once a signal has
    come the command is ending, and none is heard any more after the block. The first one is
    answered by the notice.
    """
    request = StopRequest(notice)
    before = {number: signal.signal(number, request.note) for number in _HEARD}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if request.made else handler)
