"""Units of a second, an executor without processes, and made-up results."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skillbank.config import Architecture, FinetuneConfig, PretrainConfig
from skillbank.studies import plan
from skillbank.studies.scheduler import Event
from skillbank.studies.unit import FORMAT, Places, RivalConfig, Unit, sha256, write_json

SMALL = Architecture(
    critic_hidden=(8, 8), sampler_hidden=(8, 8), couplings=1, coupling_hidden=4, critics=1
)
PARAMETERS = "abcd"  # stands for the hash of what a unit learned
STEPS, SEGMENT = 240, 100  # of a training, and between its checkpoints
EVERYWHERE: dict[str, Any] = {"evaluations": 3, "evaluation_episodes": 2, "final_episodes": 4}


def places(folder: Path) -> Places:
    return Places(folder / "results", folder / "work")


def tiny(algorithm: str = "default", seed: int = 0, **changes: Any) -> Unit:
    """A unit on the multi-goal plane, which needs no simulator."""
    shared = {"total_steps": STEPS, "batch_size": 8}
    learning: PretrainConfig | FinetuneConfig | RivalConfig
    if algorithm in ("ddpg", "ddpg_pretrained", "sac"):
        kind: Any = "sac" if algorithm == "sac" else "ddpg"
        learning = RivalConfig(
            algorithm=kind, learning_starts=40, hidden=(8, 8), target_period=40, **shared
        )
    elif algorithm == "anchored":
        learning = FinetuneConfig(
            num_envs=4, learning_starts=40, frozen_updates=5, noise_sigma=0.1, **shared
        )
    else:
        learning = PretrainConfig(
            architecture=SMALL, num_envs=4, learning_starts=40, n_step=3, **shared
        )
    definition: dict[str, Any] = {
        "experiment": "MultiGoal",
        "algorithm": algorithm,
        "seed": seed,
        "budget": "quick",
        "env_id": "skillbank/MultiGoal-v0",
        "learning": learning,
        "segment_steps": SEGMENT,
    }
    return Unit(**definition | EVERYWHERE | changes)


class FakeExecutor:
    """Runs units in an instant; some die or fail as often as they are told to.

    Args:
        where: Results are written there.
        slots: How many at once.
        dying: How often each dies before it is done.
        failing: Units that end by an error.
        busy: How often each is found busy.
    """

    def __init__(
        self,
        where: Places,
        slots: int = 2,
        dying: dict[str, int] | None = None,
        failing: Iterable[str] = (),
        busy: dict[str, int] | None = None,
    ) -> None:
        self.where, self.slots = where, slots
        self.dying, self.failing, self.busy = dict(dying or {}), set(failing), dict(busy or {})
        self.started: list[str] = []
        self.parents: dict[str, Path | None] = {}
        self.most, self.closed = 0, False
        self._running: list[Unit] = []

    def start(self, unit: Unit, parent: Path | None) -> None:
        self.started.append(unit.name)
        self.parents[unit.name] = parent
        self._running.append(unit)
        self.most = max(self.most, len(self._running))

    def events(self, timeout: float) -> list[Event]:
        if not self._running:
            return []
        unit = self._running.pop(0)
        for left, kind in ((self.dying, "died"), (self.busy, "busy")):
            if left.get(unit.name, 0) > 0:
                left[unit.name] -= 1
                return [Event(unit.name, "progress", 10), Event(unit.name, kind, text="gone")]
        if unit.name in self.failing:
            return [Event(unit.name, "failed", text="no such thing")]
        finish(unit, self.where, final={"mean_return": 1.0, "metrics": {}})
        return [Event(unit.name, "done")]

    def close(self) -> None:
        self.closed = True


def finish(unit: Unit, where: Places, **measured: Any) -> None:
    """Write the result and the skill that a unit would leave."""
    where.learned(unit).parent.mkdir(parents=True, exist_ok=True)
    where.learned(unit).write_bytes(b"a skill")
    made = {
        "training_cpu_seconds": 3000.0,
        "evaluating_cpu_seconds": 600.0,
        "wall_seconds": 4000.0,
        "versions": {"torch": "2.13.0"},
        "machine": "x86_64, 2 cores, Linux",
        "sources": "0123",
        "learned": sha256(where.learned(unit)),
        "parameters": PARAMETERS,
    }
    if unit.parent is not None:
        made["parent"] = PARAMETERS
    result = {
        "format": FORMAT,
        "unit": unit.model_dump(mode="json"),
        "measured": {"steps": unit.total_steps, "updates": 100, "final": {}} | measured,
        "made": made,
    }
    write_json(where.result(unit), result)


def planned(experiment: str, algorithm: str, seed: int) -> Unit:
    return plan.unit(experiment, algorithm, seed, "quick")
