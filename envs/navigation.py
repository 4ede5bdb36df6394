"""What navigation tasks have in common, for any body."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arenas import Arena
from .engine import Bool, Float, Index, VectorTask


class SeekTarget(VectorTask):
    """Reward: a Gaussian bump at the arena's target. Mixed in before the body's own task.

    `info` gains `distance` [N] m to the target and `success` [N] bool: has this episode ever been
    within the arena's success radius of it?
    """

    arena: Arena

    def __init__(self, **kwargs: Any) -> None:
        """Makes the copies; arguments as for the body's own task."""
        super().__init__(**kwargs)
        self._reached: Bool = np.zeros(self.num_envs, np.bool_)

    def _notice(self, copies: Index, *, started: bool) -> None:
        if started:
            self._reached[copies] = False
        self._reached[copies] |= self.distance[copies] < self.arena.success_radius

    @property
    def distance(self) -> Float:
        """Metres from the body to the target, straight through walls, [N]."""
        away = self.position - np.array(self.arena.target)
        distance: Float = np.hypot(away[:, 0], away[:, 1])
        return distance

    def _reward_terms(self) -> dict[str, Float]:
        return {"target": np.exp(-0.5 * (self.distance / self.arena.reward_width) ** 2)}

    def _facts(self) -> dict[str, NDArray[Any]]:
        return super()._facts() | {"distance": self.distance, "success": self._reached.copy()}


class FollowHallway(VectorTask):
    """`info` gains `progress` [N] m: distance from the start along the hallway, either way."""

    def __init__(self, **kwargs: Any) -> None:
        """Makes the copies; arguments as for the body's own task."""
        super().__init__(**kwargs)
        self._start_x: Float = np.zeros(self.num_envs)

    def _notice(self, copies: Index, *, started: bool) -> None:
        if started:
            self._start_x[copies] = self.position[copies, 0]

    def _facts(self) -> dict[str, NDArray[Any]]:
        return super()._facts() | {"progress": np.abs(self.position[:, 0] - self._start_x)}
