"""Progress of a training: a live line in a terminal, plain lines elsewhere, TensorBoard logs."""

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skillbank.training import Progress

PLAIN_SECONDS = 30.0  # between lines if stderr is not a terminal
BAR = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}, {rate_fmt}{postfix}, {remaining} left"
RATE_REPORTS = 20  # number of reports that the rate is measured over


class Watch:
    """Shows and logs the progress of a training.

    Args:
        folder: For TensorBoard's event files; None to write none.
        say: Prints one line.
    """

    def __init__(self, folder: Path | None, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self.seconds = 0.0  # duration of the training until its last report
        self._live = sys.stderr.isatty()
        self._bar: Any = None
        self._writer: Any = None
        self._logs = folder is not None
        self._thread_hook = threading.excepthook
        self._reports: deque[tuple[int, float]] = deque(maxlen=RATE_REPORTS)
        self._last_line = time.monotonic()

    def __enter__(self) -> "Watch":
        # The next call of the writer raises an error of TensorBoard's thread again.
        threading.excepthook = self._quiet_about_logs
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as problem:
                self._give_up_logs(problem)
        threading.excepthook = self._thread_hook

    def __call__(self, progress: "Progress") -> None:
        """Show a report of the training."""
        self.seconds = progress.seconds
        self._reports.append((progress.steps, progress.seconds))
        (steps, start), (_, now) = self._reports[0], self._reports[-1]
        if len(self._reports) == 1:
            steps, start = 0, 0.0
        rate = (progress.steps - steps) / max(now - start, 1e-9)
        self._log(progress, rate)
        if self._live:
            self._draw(progress)
        elif time.monotonic() - self._last_line >= PLAIN_SECONDS:
            self._last_line = time.monotonic()
            left = (progress.total_steps - progress.steps) / max(rate, 1e-9)
            self._say(
                f"{progress.steps}/{progress.total_steps} steps, {rate:.0f} a second, "
                f"{_state(progress)}, {duration(left)} left"
            )

    def warn(self, message: str) -> None:
        """Print a warning without garbling the live line."""
        if self._bar is not None:
            self._bar.clear()
        self._say(f"warning: {message}")
        if self._bar is not None:
            self._bar.refresh()

    def _draw(self, progress: "Progress") -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=progress.total_steps,
                initial=progress.steps,
                unit=" steps",
                unit_scale=True,
                dynamic_ncols=True,
                mininterval=0.0,
                bar_format=BAR,
            )
        self._bar.set_postfix_str(_state(progress), refresh=False)
        # The last step of all copies may exceed the total, for which tqdm drops the bar.
        self._bar.update(min(progress.steps, progress.total_steps) - self._bar.n)

    def _log(self, progress: "Progress", rate: float) -> None:
        """Write to TensorBoard's event file; a full disk must not end the training."""
        if not self._logs:
            return
        values = {
            "return": progress.mean_return,
            "temperature": progress.temperature,
            "steps_per_second": rate,
            "updates": float(progress.updates),
        } | {f"update/{name}": value for name, value in progress.figures.items()}
        try:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                # A resumed training logs the steps after its checkpoint again: purge the old ones.
                self._writer = SummaryWriter(
                    str(self._folder), purge_step=progress.steps, flush_secs=10
                )
            for tag, value in values.items():
                if math.isfinite(value):
                    self._writer.add_scalar(tag, value, progress.steps)
        except OSError as problem:
            self._give_up_logs(problem)

    def _quiet_about_logs(self, failure: threading.ExceptHookArgs) -> None:
        if not issubclass(failure.exc_type, OSError):
            self._thread_hook(failure)

    def _give_up_logs(self, problem: OSError) -> None:
        if not self._logs:
            return  # closing a broken writer fails once more
        self._logs = False
        self.warn(f"no more logs in {self._folder}: {problem.strerror or problem}")


@contextmanager
def counting(episodes: int, say: Callable[[str], None]) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of an evaluation of more than a second; yield its ``report``.

    Args:
        episodes: The number of episodes.
        say: Prints one line.
    """
    from tqdm import tqdm

    last_line = time.monotonic()
    with tqdm(
        total=episodes,
        bar_format="{n_fmt}/{total_fmt} episodes{postfix}",
        miniters=0,  # steps are shown while no episode ends
        disable=None,
        leave=False,
        delay=1.0,
    ) as bar:

        def report(ended: int, step: int) -> None:
            nonlocal last_line
            bar.set_postfix_str(f"step {step}", refresh=False)
            bar.update(ended - bar.n)
            if bar.disable and time.monotonic() - last_line >= PLAIN_SECONDS:
                last_line = time.monotonic()
                say(f"{ended}/{episodes} episodes, step {step}")

        try:
            yield report
        except KeyboardInterrupt:
            bar.leave = True  # after the terminal's ^C the line cannot be cleared
            raise


def _state(progress: "Progress") -> str:
    if not math.isfinite(progress.temperature):  # a certificate or correction: no policy training
        return ", ".join(f"{name} {value:.3g}" for name, value in progress.figures.items())
    known = math.isfinite(progress.mean_return)  # an episode has ended
    score = f"{progress.mean_return:.4g}" if known else "-"
    return f"return {score}, alpha {progress.temperature:.3g}"


def duration(seconds: float) -> str:
    """Format a duration: ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if not math.isfinite(seconds):
        return "an unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
