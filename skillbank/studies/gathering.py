"""The available results, as arrays over seeds."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skillbank.studies import plan
from skillbank.studies.unit import Budget, Json, Places, current

Float = NDArray[np.float64]


@dataclass
class Group:
    """All results of one algorithm on one experiment, by seed; diverged trainings separately."""

    experiment: str
    algorithm: str
    planned: int  # seeds
    results: dict[int, Json] = field(default_factory=dict)
    diverged: dict[int, Json] = field(default_factory=dict)
    stale: int = 0  # results of an outdated definition, which are left out

    def __len__(self) -> int:
        return len(self.results)

    @property
    def measured(self) -> list[Json]:
        """What was measured, by seed."""
        return [result["measured"] for _, result in sorted(self.results.items())]

    @property
    def seeds(self) -> int:
        """Number of seeds that have ended, by finishing or by diverging."""
        return len(self.results) + len(self.diverged)

    @property
    def label(self) -> str:
        """Its label in pictures and tables."""
        return plan.label(self.experiment, self.algorithm)

    @property
    def count(self) -> str:
        """Its number of seeds, as in tables: ``10``, or ``7 of 10, 1 diverged`` if unfinished."""
        short = f" of {self.planned}" if self.seeds < self.planned else ""
        return f"{self.seeds}{short}" + (
            f", {len(self.diverged)} diverged" if self.diverged else ""
        )

    @property
    def steps(self) -> int:
        """Environment steps of each training."""
        return int(self.measured[0]["steps"])

    def final(self, metric: str) -> Float:
        """A metric of the last evaluation, or its ``mean_return``, for each seed [N]."""
        values = [m["final"].get(metric, m["final"]["metrics"].get(metric)) for m in self.measured]
        return np.array(values, np.float64)

    def curves(self) -> tuple[Float, Float]:
        """Steps [E] and the evaluations' mean return for each seed [N, E]."""
        told = [m["evaluations"] for m in self.measured]
        returns = [t["mean_return"] for t in told]
        return np.array(told[0]["steps"], np.float64), np.array(returns, np.float64)

    def watched(self, what: str) -> Float:
        """The watched quantity during training [N, windows], or at the evaluations [N, E]."""
        return np.array([m["watched"][what] for m in self.measured], np.float64)

    def steps_to(self, level: float) -> Float:
        """Steps after which each seed's curve is at a level for three evaluations in a row [N].

        Three, to rule out lucky evaluations. 0: it starts there; infinite: never.
        """
        steps, curves = self.curves()
        above = curves >= level
        stays = above[:, :-2] & above[:, 1:-1] & above[:, 2:]
        first = np.where(stays.any(1), steps[stays.argmax(1)], np.inf)
        first[stays[:, 0]] = 0.0
        return first

    def hours(self) -> float:
        """CPU hours of these trainings with their evaluations, without those that diverged."""
        seconds = sum(
            result["made"]["training_cpu_seconds"] + result["made"]["evaluating_cpu_seconds"]
            for result in self.results.values()
        )
        return float(seconds) / 3600

    def updates(self) -> int:
        """Gradient updates of one training."""
        return int(self.measured[0]["updates"])


def gather(experiment: str, algorithm: str, budget: Budget, places: Places, planned: int) -> Group:
    """Every result of an algorithm on an experiment; ``planned`` is the intended seed count."""
    group = Group(experiment, algorithm, planned)
    for path in sorted((places.results / budget / experiment).glob(f"{algorithm}-*.json")):
        seed = path.stem.removeprefix(f"{algorithm}-")
        if not seed.isdecimal():
            continue
        unit = plan.unit(experiment, algorithm, int(seed), budget)
        if path != places.result(unit):  # another spelling of a seed
            continue
        result = current(unit, places)
        if result is None:
            group.stale += 1
        elif "diverged" in result["measured"]:
            group.diverged[int(seed)] = result
        else:
            group.results[int(seed)] = result
    return group


def gathered(figure: str, budget: Budget, places: Places) -> list[Group]:
    """The groups of a figure, in its order, including those without results."""
    drawn = plan.FIGURES[figure]
    return [
        gather(experiment, algorithm, budget, places, len(drawn.seeds))
        for experiment, algorithms in drawn.runs
        for algorithm in algorithms
    ]
