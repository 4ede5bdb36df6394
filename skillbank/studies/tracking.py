"""What is recorded while a unit trains: a curve of evaluations, and its own episodes.

All records are arrays that a checkpoint stores, so that a training that was killed and resumed
reports the same as an uninterrupted one.
"""

import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from skillbank.evaluation import Evaluation, Policy, evaluate, final_info
from skillbank.studies.unit import Json, Unit
from skillbank.task import Step

WINDOWS = 100  # equal parts of a training, by which its own episodes are summarised
CURVE_SEED = 1_000_000  # of the curve's episodes; training uses seeds from the unit's seed upwards
FINAL_SEED = 2_000_000  # of the last evaluation

Array = NDArray[Any]
Model = TypeVar("Model", bound=Policy)


class Tracker:
    """Records one training.

    Args:
        unit: The unit being trained.
        copies: N, environment copies that step together.
        tell: Called with the number of steps from time to time.

    Attributes:
        memory: The recorded arrays; a checkpoint may fill it.
    """

    def __init__(self, unit: Unit, copies: int, tell: Callable[[int], None]) -> None:
        self.unit, self.copies, self.tell = unit, copies, tell
        self.memory: dict[str, Array] = {}
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        self._told = float("-inf")

    def __call__(self, steps: int, step: Step, policy: Callable[[], Policy]) -> None:
        """Record a step of all copies.

        Args:
            steps: Environment steps so far, over all copies.
            step: The latest step.
            policy: Makes the current policy, for an evaluation.
        """
        memory, unit = self.memory, self.unit
        if "running" not in memory:  # no checkpoint has filled it
            memory.update(self._nothing())
        segment = (steps - self.copies) // unit.segment_steps
        if segment != memory["segment"][0]:  # a segment restarts all episodes
            memory["segment"][0] = segment
            memory["running"][:] = 0.0
        window = min(WINDOWS - 1, (steps - 1) * WINDOWS // unit.total_steps)
        memory["running"] += step.reward.numpy()
        if step.ended.any():
            ended = memory["running"][step.ended]
            memory["episodes"][window] += ended.sum(), len(ended)
            memory["running"][step.ended] = 0.0
        if unit.watched is not None:
            facts = final_info(step.info, step.ended) if step.ended.any() else step.info
            values = np.asarray(facts[unit.watched])
            extremes = memory["extremes"][window]
            extremes[0] = np.fmin(extremes[0], values.min())
            extremes[1] = np.fmax(extremes[1], values.max())
        self._count(0)
        point = int((memory["evaluation_steps"] > 0).sum())
        # The first evaluation is of the policy that training starts from.
        if point < self.points and steps >= point * unit.total_steps // unit.evaluations:
            self._evaluate(point, steps, policy())
        elif time.monotonic() - self._told > 1.0:
            self._tell(steps)

    @property
    def points(self) -> int:
        """Points of the curve: the evaluations, and one at the start."""
        return self.unit.evaluations + 1 if self.unit.evaluations else 0

    def _nothing(self) -> dict[str, Array]:
        points, episodes = self.points, self.unit.evaluation_episodes
        return {
            "segment": np.zeros(1, np.int64),  # of the running episodes
            "running": np.zeros(self.copies),  # return of each copy's episode so far
            "extremes": np.full((WINDOWS, 2), np.nan),  # least and most of the watched fact
            "episodes": np.zeros((WINDOWS, 2)),  # sum of returns, and how many ended
            "evaluation_steps": np.zeros(points, np.int64),
            "evaluation_returns": np.full((points, episodes), np.nan),
            "evaluation_success": np.full((points, episodes), np.nan),
            "evaluation_watched": np.full((points, episodes), np.nan),
            "seconds": np.zeros(3),  # CPU of training, CPU of evaluating, wall clock of both
        }

    def _evaluate(self, point: int, steps: int, policy: Policy) -> None:
        unit, memory = self.unit, self.memory
        found = self._measured(policy, unit.evaluation_episodes, CURVE_SEED)
        memory["evaluation_steps"][point] = steps
        memory["evaluation_returns"][point] = found.returns
        for name, fact in (("success", "success"), ("watched", unit.watched)):
            if fact is not None and fact in found.metrics:
                memory[f"evaluation_{name}"][point] = found.metrics[fact]
        self._count(1)
        self._tell(steps)

    def _count(self, what: int) -> None:
        """Add the CPU time since the last call to training (0) or evaluating (1)."""
        cpu, wall = time.process_time(), time.perf_counter()
        self.memory["seconds"][what] += cpu - self._cpu
        self.memory["seconds"][2] += wall - self._wall
        self._cpu, self._wall = cpu, wall

    def _tell(self, steps: int) -> None:
        self._told = time.monotonic()
        self.tell(steps)

    def final(self, policy: Policy) -> Evaluation:
        """Measure what has been learned."""
        found = self._measured(policy, self.unit.final_episodes, FINAL_SEED)
        self._count(1)
        return found

    def _measured(self, policy: Policy, episodes: int, seed: int) -> Evaluation:
        unit = self.unit
        return evaluate(
            policy,
            unit.env_id,
            episodes=episodes,
            seed=seed,
            deterministic=unit.deterministic,
            nominal_start=unit.nominal_start,
        )

    def report(self) -> Json:
        """The course of the training, as its result file stores it."""
        memory = self.memory
        known = memory["evaluation_steps"] > 0
        returns, success, watched = (
            memory[f"evaluation_{name}"][known] for name in ("returns", "success", "watched")
        )
        ended, (total, count) = memory["episodes"][:, 1] > 0, memory["episodes"].T
        course: Json = {
            "evaluations": {
                "steps": memory["evaluation_steps"][known].tolist(),
                "mean_return": rounded(returns.mean(1)),
                "std_return": rounded(returns.std(1)),
            },
            "training_returns": rounded(np.where(ended, total / np.maximum(count, 1), np.nan)),
        }
        if not np.isnan(success).any():
            course["evaluations"]["success"] = rounded(success.mean(1))
        if self.unit.watched is not None:
            low, high = memory["extremes"].T
            course["watched"] = {
                "fact": self.unit.watched,
                "least": rounded(low),
                "most": rounded(high),
                "evaluated_least": rounded(watched.min(1)),
                "evaluated_most": rounded(watched.max(1)),
            }
        return course

    def seconds(self) -> Json:
        """CPU and wall-clock seconds, without those that a kill has lost."""
        training, evaluating, wall = self.memory["seconds"]
        return {
            "training_cpu_seconds": round(float(training), 1),
            "evaluating_cpu_seconds": round(float(evaluating), 1),
            "wall_seconds": round(float(wall), 1),
        }


def rounded(values: Array, digits: int = 5) -> list[Any]:
    """Numbers rounded to significant digits, nested like the array; None where not finite."""
    flat = [float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in np.ravel(values).tolist()]
    if np.ndim(values) < 2:
        return flat
    array = np.empty(len(flat), object)
    array[:] = flat
    nested: list[Any] = array.reshape(np.shape(values)).tolist()
    return nested


class Learned(NamedTuple, Generic[Model]):
    """The outcome of a unit's training."""

    model: Model
    tracker: Tracker
    updates: int
