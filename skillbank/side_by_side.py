"""Work done side by side on the cores there are: simulation, critics and sampling network.

Torch's operations and the simulator release the interpreter lock, so that threads are enough. The
pieces do not depend on each other and draw nothing at random, so that a training gives the same
numbers, bit for bit, whether they run one after the other or at once.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Generic, ParamSpec, TypeVar

import torch

MOST = 3  # threads that find work: the critics, the sampling network, and the simulation

P = ParamSpec("P")
T = TypeVar("T")


class InTurn(Executor):
    """An executor without threads: does at once what it is given."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call, and return the result as a future that is done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)
        return future


class Piece(Generic[T]):
    """A call given to an executor; whoever needs its result makes it where nobody has begun."""

    def __init__(
        self, executor: Executor, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        self._call = partial(fn, *args, **kwargs)
        self._future = executor.submit(self._call)

    def result(self) -> T:
        """What the call returns."""
        return self._call() if self._future.cancel() else self._future.result()


@contextmanager
def side_by_side() -> Iterator[Executor]:
    """An executor for what may run beside the caller, as many threads as torch is set to use.

    With one (``OMP_NUM_THREADS=1`` or ``torch.set_num_threads(1)``) everything runs in turn. With
    more, torch's own threads are set aside meanwhile: splitting the small products of an update
    gains less than doing two of them at once.
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
