"""Tasks of the composition study: ``PointMassReach`` with a reward for every goal.

Importing this registers ``skillbank-benchmark/PointMassGoals-v0``.
"""

from typing import Any

import gymnasium
import numpy as np
from skillbank.envs import point_mass
from skillbank.envs.single import one_copy

ANYWHERE = 1.4  # half the side of the square of starts, m; goals are 1.5 m from the middle
GOALS_ID = "skillbank-benchmark/PointMassGoals-v0"


class PointMassGoalsVector(point_mass.PointMassReachVector):
    """Every goal ends the episode and pays its own amount; time costs as in ``PointMassReach``.

    Episodes start anywhere between the goals, or in the middle.
    """

    def __init__(self, *, amounts: dict[str, float], anywhere: bool = True, **kwargs: Any) -> None:
        super().__init__(goals=tuple(amounts), **kwargs)
        self._spread = ANYWHERE if anywhere else point_mass.START_SPREAD
        self._amounts = np.array([*(amounts.get(n, 0.0) for n in point_mass.REACH_GOALS), 0.0])

    def _start(self, copies: Any, draws: Any) -> None:
        if draws is None:
            draws = np.zeros((len(copies), 4))
        place = self._spread * draws[:, :2]
        self.simulation.start(copies, place, point_mass.START_SPEED * draws[:, 2:])

    def _reward_terms(self) -> dict[str, Any]:
        time = np.full(self.num_envs, -point_mass.REACH_TIME_COST)
        return {"goal": self._amounts[self.goal], "time": time}


PointMassGoals = one_copy(PointMassGoalsVector)

if GOALS_ID not in gymnasium.registry:
    gymnasium.register(
        id=GOALS_ID,
        entry_point=PointMassGoals,
        vector_entry_point=PointMassGoalsVector,
        max_episode_steps=100,
    )
