"""The common base of skills and compositions: units, Q-values and composition operators.

``skillbank.compose`` defines the meaning of ``a & b``, ``a | b`` and ``a - 0.5 * b``.
"""

import copy
import operator
from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skillbank.errors import InvalidArgument
from skillbank.spec import blocks_text
from skillbank.task import unscaled

if TYPE_CHECKING:
    from skillbank.compose.composed import Composed, ComposedSpec
    from skillbank.spec import SkillSpec


class Composable(ABC):
    """Base class of skills and of their compositions.

    Args:
        spec: The metadata.
        seed: Seed of the actions that are sampled without an explicit seed.
    """

    spec: "SkillSpec | ComposedSpec"

    def __init__(self, spec: "SkillSpec | ComposedSpec", seed: int) -> None:
        self.spec = spec
        self._low, self._high = np.asarray(spec.action_low), np.asarray(spec.action_high)
        self._generator = torch.Generator().manual_seed(int(seed))

    def __bool__(self) -> bool:
        """Refuse a truth value, so that ``a and b`` is not ``b``.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "a skill is neither true nor false: compose with & (mean of rewards), | (soft-OR) or "
            "weighted sums, and compare with None by 'is'"
        )

    @property
    def observation_space(self) -> Box:
        """The space of observations: S unbounded numbers."""
        return Box(-np.inf, np.inf, (self.spec.observation_size,), np.float32)

    @property
    def action_space(self) -> Box:
        """The space of actions: A bounded numbers in the environment's units."""
        kind = np.dtype(self.spec.action_dtype)
        low, high = np.array(self.spec.action_low, kind), np.array(self.spec.action_high, kind)
        return Box(low, high, dtype=kind.type)

    # Q-values.

    @abstractmethod
    def tensor_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """Q-values of scaled actions [B, K, A] -> [B, K]."""

    @torch.no_grad()
    def q(self, obs: ArrayLike, action: ArrayLike) -> NDArray[np.float32]:
        """Soft Q-values, in units of scaled reward.

        For a skill, this is the minimum of its critics. For an anchored skill, ``alpha * log pi_0``
        is added: that is the soft Q-value for the reward ``r + alpha log pi_0``, with the same
        soft-optimal policy ``exp((q - value) / alpha)``. For a composition, its expression is
        evaluated.

        Args:
            obs: [B, S].
            action: [B, A] or [B, K, A], in the environment's units. Beyond the action bounds the
                networks extrapolate.

        Returns:
            [B] or [B, K].

        Raises:
            InvalidArgument: The shapes do not match, or a value is not finite.
        """
        states, actions = self.observed(obs), self.scaled(action)
        if actions.shape[0] != states.shape[0] or actions.ndim not in (2, 3):
            raise InvalidArgument(
                f"obs {tuple(states.shape)} and action {tuple(actions.shape)} do not go together; "
                "expected obs [B, S] and action [B, A] or [B, K, A]"
            )
        if actions.ndim == 2:
            return self.tensor_q(states, actions.unsqueeze(1)).squeeze(1).numpy()
        return self.tensor_q(states, actions).numpy()

    def energy(self, obs: ArrayLike, action: ArrayLike) -> NDArray[np.float32]:
        """``-q / temperature``, the E of ``pi ~ exp(-E)`` (eq. 3), shaped as ``q``."""
        return -self.q(obs, action) / np.float32(self.spec.temperature)

    # Actions.

    @abstractmethod
    def _one_each(self, obs: Tensor, deterministic: bool) -> Tensor:
        """One scaled action for each observation: [B, S] -> [B, A]."""

    @torch.no_grad()
    def predict(
        self,
        observation: ArrayLike,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], None]:
        """One action per observation, with the interface of Stable-Baselines3.

        Args:
            observation: [S] or [B, S].
            state: Ignored; a skill is stateless.
            episode_start: Ignored.
            deterministic: Take the action with the highest Q that a fixed search finds, instead of
                a random one. A skill searches among the actions of a fixed set of noises, a
                composition around its best candidates.

        Returns:
            Actions [A] or [B, A] in the environment's units, and None.

        Raises:
            InvalidArgument: The shape is wrong, or a value is not finite.
        """
        if isinstance(observation, tuple) and isinstance(observation[-1], dict):
            raise InvalidArgument("an observation is needed, not a pair: obs, info = env.reset()")
        obs = self.observed(np.atleast_2d(np.asarray(observation)))
        action = self.unscaled(self._one_each(obs, deterministic))
        return (action[0] if np.ndim(observation) == 1 else action), None

    def reseeded(self, seed: int) -> Self:
        """A copy with its own random generator; the same seed gives the same actions."""
        other = copy.copy(self)
        other._generator = torch.Generator().manual_seed(int(seed))
        return other

    def _continued(self, other: Self) -> Self:
        """A skill made from this one, with this one's stream of random actions from here on."""
        other._generator.set_state(self._generator.get_state())
        return other

    def _chance(self, seed: int | None) -> torch.Generator:
        """A generator with this seed; None: the skill's own."""
        return (
            self._generator if seed is None else torch.Generator().manual_seed(operator.index(seed))
        )

    # Units.

    def observed(self, obs: ArrayLike) -> Tensor:
        """Observations [B, S] as a tensor.

        Raises:
            InvalidArgument: The shape is wrong, or a value is not finite.
        """
        blocks = self.spec.observation_blocks
        try:
            array = np.asarray(obs, np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(
                f"expected observations [B, {self.spec.observation_size}] of numbers, got "
                f"{type(obs).__name__} ({error})"
            ) from error
        if array.ndim != 2 or array.shape[1] != self.spec.observation_size:
            if array.shape == (self.spec.observation_size,):
                raise InvalidArgument(
                    f"expected observations [B, {self.spec.observation_size}], got one observation "
                    f"{array.shape}: pass obs[None], a batch of one"
                )
            raise InvalidArgument(
                f"expected observations [B, {self.spec.observation_size}], got {array.shape}: the "
                f"skill observes {blocks_text(blocks)}. For a task with more blocks, fit it to the "
                'task first, as in skill.fitted_to("PointMassHallway")'
            )
        finite = np.isfinite(array)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise InvalidArgument(f"observation {row} is {array[row, column]} at index {column}")
        return torch.from_numpy(array.copy())

    def scaled(self, action: ArrayLike) -> Tensor:
        """Actions [..., A] in the environment's units -> scaled to [-1, 1].

        Raises:
            InvalidArgument: The last axis is not of size A, or a value is not finite.
        """
        try:
            array = np.asarray(action, np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"actions must be numbers of one shape: {error}") from error
        if not np.isfinite(array).all():
            raise InvalidArgument(f"actions must be finite, got {array[~np.isfinite(array)][0]}")
        if array.shape[-1:] != self._low.shape:
            raise InvalidArgument(
                f"expected actions [..., {self.spec.action_size}], got {array.shape}"
            )
        scaled = (array - self._low) / (self._high - self._low) * 2.0 - 1.0
        return torch.from_numpy(scaled.astype(np.float32))

    def unscaled(self, action: Tensor) -> NDArray[Any]:
        """Actions [..., A] scaled to [-1, 1] -> in the environment's units and type."""
        return unscaled(action.numpy(), self._low, self._high, self.spec.action_dtype)

    # Arithmetic.

    def __and__(self, other: object) -> "Composed":
        """Mean of the Q-functions: good at both. ``a & b & c`` is the mean of three."""
        if not isinstance(other, Composable):
            return NotImplemented
        return _joined("&", self, other)

    def __or__(self, other: object) -> "Composed":
        """Soft-OR of the Q-functions: good at either. ``a | b | c`` is the soft-OR of three."""
        if not isinstance(other, Composable):
            return NotImplemented
        return _joined("|", self, other)

    def __add__(self, other: object) -> "Composed":
        """Sum of the rewards."""
        if not isinstance(other, Composable):
            return NotImplemented
        return _added(self, 1.0, other, 1.0)

    def __radd__(self, other: object) -> "Composable":
        """Support ``sum([a, b])``, which starts with 0."""
        return self if other == 0 else NotImplemented

    def __sub__(self, other: object) -> "Composed":
        """Difference of the rewards: one but not the other."""
        if not isinstance(other, Composable):
            return NotImplemented
        return _added(self, 1.0, other, -1.0)

    def __mul__(self, weight: object) -> "Composed":
        """The reward times a number."""
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            return NotImplemented
        composed: Composed = import_module("skillbank.compose").add([(self, float(weight))])
        return composed

    __rmul__ = __mul__

    def __truediv__(self, divisor: object) -> "Composed":
        """The reward divided by a number."""
        if isinstance(divisor, bool) or not isinstance(divisor, int | float):
            return NotImplemented
        return self * (1.0 / divisor)

    def __neg__(self) -> "Composed":
        """The negative of the reward."""
        return self * -1.0


def _added(a: Composable, one: float, b: Composable, other: float) -> "Composed":
    composed: Composed = import_module("skillbank.compose").add([(a, one), (b, other)])
    return composed


def _joined(operator: str, a: Composable, b: Composable) -> "Composed":
    composed: Composed = import_module("skillbank.compose").joined(operator, a, b)
    return composed
