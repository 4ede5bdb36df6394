"""Run simulation, critics and sampling network in parallel on the available cores.

Torch's operations and the simulator release the interpreter lock, so threads are enough. The
parallel calls are independent and draw no random numbers, so a training gives bit-identical
results whether they run sequentially or in parallel.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Generic, ParamSpec, TypeVar

import torch

MOST = 3  # threads that can be used: for critics, sampling network and simulation

P = ParamSpec("P")
T = TypeVar("T")


class InTurn(Executor):
    """An executor without threads: it runs each call immediately."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call the function and return its result as a finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - raised by Future.result
            future.set_exception(error)
        return future


class Piece(Generic[T]):
    """A call submitted to an executor; ``result`` runs it itself if no thread has started it."""

    def __init__(
        self, executor: Executor, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        self._call = partial(fn, *args, **kwargs)
        self._future = executor.submit(self._call)

    def result(self) -> T:
        """The return value of the call."""
        return self._call() if self._future.cancel() else self._future.result()


@contextmanager
def side_by_side() -> Iterator[Executor]:
    """An executor for work parallel to the caller, with as many threads in all as torch uses.

    With one thread (``OMP_NUM_THREADS=1`` or ``torch.set_num_threads(1)``) everything runs
    sequentially. With more, torch is limited to one thread per operation meanwhile: running two of
    an update's small matrix products at once gains more than splitting each over threads.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield InTurn()
        return
    torch.set_num_threads(1)
    try:
        others = min(threads, MOST) - 1
        with ThreadPoolExecutor(others, "skillbank", torch.set_num_threads, (1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
