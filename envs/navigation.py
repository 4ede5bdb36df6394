"""What navigation tasks have in common, for any body."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arenas import Arena
from .engine import Bool, Float, Index, VectorTask


def squared_distances(places: Float, goals: Float) -> Float:
    """Of every place [N, 2] from every goal [G, 2]: [N, G]."""
    squared: Float = np.sum((places[:, np.newaxis] - goals) ** 2, axis=2)
    return squared


def goal_at(squared: Float, radius: float) -> Index:
    """The nearest goal if it is within the radius, else -1: squared distances [N, G] -> [N]."""
    return np.where(squared.min(axis=1) < radius**2, squared.argmin(axis=1), -1)


def unit_vector(direction: float) -> Float:
    """The vector [2] of length 1 in a direction, radians counter-clockwise from east.

    Raises:
        ValueError: if the direction is not a finite number.
    """
    if not math.isfinite(direction):
        raise ValueError(f"direction must be a finite angle in radians, got {direction}")
    return np.array([math.cos(direction), math.sin(direction)])


class SeekTarget(VectorTask):
    """Reward: a Gaussian bump at the arena's only target. Mixed in before the body's own task.

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
        (target,) = self.arena.targets
        away = self.position - np.array(target)
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
