"""Units on a Ray cluster, for when one machine is not enough.

Needs the extra ``skillbank[ray]`` on every machine of the cluster. A unit's results come back
through Ray and are written on this machine, so the machines need no shared disk. Checkpoints stay
on the machine that wrote them, even after their unit is done: a unit whose machine is lost starts
over elsewhere; one whose process died resumes from its checkpoint if it returns to the same
machine. The numbers are the same in every case.
"""

import logging
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from skillbank.durable import replace_file
from skillbank.errors import Busy, SkillbankError, StorageError
from skillbank.studies.local import ONE_THREAD
from skillbank.studies.performing import at_work, keep, measured_result
from skillbank.studies.scheduler import Event
from skillbank.studies.unit import Json, Places, Unit


class Outcome(NamedTuple):
    """What comes back from another machine."""

    result: Json
    learned: bytes | None  # the file that the unit leaves for others; None: it diverged


class Note:
    """An actor in the cluster that collects the progress of all units."""

    def __init__(self) -> None:
        self._news: dict[str, int] = {}

    def tell(self, name: str, steps: int) -> None:
        """Record how many steps a unit has made."""
        self._news[name] = steps

    def news(self) -> dict[str, int]:
        """The steps recorded since the last call, by unit."""
        news, self._news = self._news, {}
        return news


def perform_there(unit_json: str, work: str, parent: bytes | None, note: Any) -> Outcome:
    """Perform a unit on the machine where this runs (a task)."""
    import torch

    torch.set_num_threads(1)
    unit = Unit.model_validate_json(unit_json)
    places = Places(Path(work), Path(work))
    with at_work(unit, places):
        source: Path | None = None
        if parent is not None:
            source = places.folder(unit) / "parent"
            source.write_bytes(parent)
        result = measured_result(unit, places, source, partial(note.tell.remote, unit.name))
        left = "diverged" not in result["measured"]
        return Outcome(result, places.learned(unit).read_bytes() if left else None)


class RayCluster:
    """One Ray task of one core for each unit.

    Args:
        places: Where results and skills are kept, on this machine.
        address: ``auto`` for the cluster that this machine belongs to, or a head's address.
        workers: Units at once; None: as many as the cluster has cores.

    Raises:
        SkillbankError: Ray is not installed, or the cluster does not answer.
    """

    def __init__(self, places: Places, address: str, workers: int | None = None) -> None:
        try:
            ray: Any = import_module("ray")
        except ImportError as error:
            raise SkillbankError(
                "Ray is not installed; it comes with: pip install 'skillbank[ray]'"
            ) from error
        self.places = places
        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise SkillbankError(
                    f"no Ray cluster at '{address}': {error}. "
                    "`ray start --head` starts one, and prints how other machines join it"
                ) from error
        cores = int(ray.cluster_resources().get("CPU", 0))
        self.slots = max(1, min(workers or cores, cores))
        # max_calls: a new process for every unit, as on one machine.
        environment = {"env_vars": ONE_THREAD | {"PYTHONHASHSEED": "0"}}
        self._task = ray.remote(num_cpus=1, max_retries=0, max_calls=1, runtime_env=environment)(
            perform_there
        )
        self._note: Any = ray.remote(num_cpus=0, max_restarts=-1)(Note).remote()
        self._running: dict[Any, Unit] = {}

    def start(self, unit: Unit, parent: Path | None) -> None:
        """Start a unit wherever the cluster has a free core."""
        content = None if parent is None else parent.read_bytes()
        work = str(self.places.work.absolute())
        reference = self._task.remote(unit.model_dump_json(), work, content, self._note)
        self._running[reference] = unit

    def events(self, timeout: float) -> list[Event]:
        """New events; waits at most ``timeout`` seconds for the first."""
        if not self._running:
            time.sleep(timeout)
            return []
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        names = {unit.name for unit in self._running.values()}
        try:
            news = self._ray.get(self._note.news.remote())
        except self._ray.exceptions.RayActorError:  # the actor restarts on another machine
            news = {}
        found = [Event(name, "progress", steps) for name, steps in news.items() if name in names]
        for reference in ended:
            found.append(self._ended(reference, self._running.pop(reference)))
        return found

    def close(self) -> None:
        """Stop all running units, and disconnect from the cluster."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._ray.kill(self._note)
        if self._ours:
            self._ray.shutdown()

    def _ended(self, reference: Any, unit: Unit) -> Event:
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, Busy):
                return Event(unit.name, "busy")
            self._log(unit, str(error))
            return Event(unit.name, "failed", text=str(error.cause))
        except errors.RayError as error:  # the worker, or its machine, is lost
            self._log(unit, str(error))
            return Event(
                unit.name, "died", text=f"{type(error).__name__}; see {self._log_of(unit)}"
            )
        try:
            if outcome.learned is not None:
                replace_file(self.places.learned(unit), outcome.learned)
            keep(outcome.result, unit, self.places)
        except StorageError as error:
            return Event(unit.name, "failed", text=str(error))
        return Event(unit.name, "done")

    def _log_of(self, unit: Unit) -> Path:
        return self.places.folder(unit) / "log.txt"

    def _log(self, unit: Unit, text: str) -> None:
        path = self._log_of(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as log:
            log.write(text + "\n")
