"""Arithmetic between skills: ``a & b``, ``a | b``, ``a - 0.5 * b``. What it means: ``compose``."""

from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
from gymnasium.spaces import Box

if TYPE_CHECKING:
    from skillbank.compose.composed import Composed, ComposedSpec
    from skillbank.spec import SkillSpec


class Composable:
    """What can be composed: skills, and what has been composed of them."""

    spec: "SkillSpec | ComposedSpec"

    @property
    def observation_space(self) -> Box:
        """What it takes: S numbers."""
        return Box(-np.inf, np.inf, (self.spec.observation_size,), np.float32)

    @property
    def action_space(self) -> Box:
        """What it gives: A numbers between its bounds, in the environment's units."""
        kind = np.dtype(self.spec.action_dtype)
        low, high = np.array(self.spec.action_low, kind), np.array(self.spec.action_high, kind)
        return Box(low, high, dtype=kind.type)

    def __and__(self, other: object) -> "Composed":
        """The mean: good at both. ``a & b & c`` is the mean of three."""
        if not isinstance(other, Composable):
            return NotImplemented
        return _joined("&", self, other)

    def __or__(self, other: object) -> "Composed":
        """Soft-OR: good at either. ``a | b | c`` is the soft-OR of three."""
        if not isinstance(other, Composable):
            return NotImplemented
        return _joined("|", self, other)

    def __add__(self, other: object) -> "Composed":
        """Sum of rewards."""
        if not isinstance(other, Composable):
            return NotImplemented
        return _added(self, 1.0, other, 1.0)

    def __radd__(self, other: object) -> "Composable":
        """The start of ``sum([a, b])``, which is 0."""
        return self if other == 0 else NotImplemented

    def __sub__(self, other: object) -> "Composed":
        """Difference of rewards: one but not the other."""
        if not isinstance(other, Composable):
            return NotImplemented
        return _added(self, 1.0, other, -1.0)

    def __mul__(self, weight: object) -> "Composed":
        """So many times the reward."""
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            return NotImplemented
        composed: Composed = import_module("skillbank.compose").add([(self, float(weight))])
        return composed

    __rmul__ = __mul__

    def __truediv__(self, divisor: object) -> "Composed":
        """A fraction of the reward."""
        if isinstance(divisor, bool) or not isinstance(divisor, int | float):
            return NotImplemented
        return self * (1.0 / divisor)

    def __neg__(self) -> "Composed":
        """The opposite reward."""
        return self * -1.0


def _added(a: Composable, one: float, b: Composable, other: float) -> "Composed":
    composed: Composed = import_module("skillbank.compose").add([(a, one), (b, other)])
    return composed


def _joined(operator: str, a: Composable, b: Composable) -> "Composed":
    composed: Composed = import_module("skillbank.compose").joined(operator, a, b)
    return composed
