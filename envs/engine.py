"""Many copies of one task at once, behind Gymnasium's `VectorEnv`; and one copy, behind `Env`.

A task says how its copies start, move, are observed and are rewarded, always for all copies in one
NumPy expression. This module adds what Gymnasium asks of every environment: seeds, partial resets,
episode limits, automatic resets with true final observations, and `info`.

Autoreset is SAME_STEP: when an episode ends, `step` returns the first observation of the next one,
and the last observation of the one that ended is `info["final_obs"][i]` where `info["_final_obs"]`
is true. Reward terms in `info` always belong to the reward returned beside them; everything else
in `info` describes the observation returned beside it, and `info["final_info"]` the one in
`final_obs`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .arenas import Arena
from .symmetry import Symmetry

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Index = NDArray[np.int64]
Observation = NDArray[np.float32]
Info = dict[str, Any]


class VectorTask(VectorEnv[Any, Any, Any]):
    """N copies of a task that are stepped together and independent otherwise.

    Copy i behaves exactly like a single copy with the same seed: it has its own random stream.

    Attributes:
        observation_blocks: names and sizes of the parts of an observation, in order.
        symmetries: relabellings that leave dynamics and reward unchanged, identity first.
        control_timestep: seconds of simulated time per step.
        model_hash: sha256 (hex) of the physical model, None without MuJoCo.
        arena: walls and target as seen from above, None where there are neither.
        any_thread: whether steps may be made in another thread than the one that made the task.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["rgb_array"],
        "render_fps": 20,
    }
    observation_blocks: tuple[tuple[str, int], ...]
    control_timestep: float
    model_hash: str | None = None
    arena: Arena | None = None
    any_thread = True

    def __init__(
        self,
        *,
        num_envs: int,
        action_low: NDArray[np.float32],
        action_high: NDArray[np.float32],
        max_episode_steps: int | None,
    ) -> None:
        """Makes the spaces and the book-keeping.

        Args:
            num_envs: number of copies, N.
            action_low: [A], in the task's own units.
            action_high: [A].
            max_episode_steps: control steps until an episode is truncated; None for never.

        Raises:
            ValueError: if there is not at least one copy, or an episode has no step.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
        self.num_envs = num_envs
        size = sum(width for _, width in self.observation_blocks)
        self.single_observation_space = Box(-np.inf, np.inf, (size,), np.float32)
        self.single_action_space = Box(action_low, action_high, dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.max_episode_steps = max_episode_steps
        self._action_shape = (num_envs, len(action_low))
        self._elapsed = np.zeros(num_envs, np.int64)
        self._started = np.zeros(num_envs, np.bool_)
        self._randomize = np.ones(num_envs, np.bool_)
        self._all_copies = np.arange(num_envs)
        self._everyone = np.ones(num_envs, np.bool_)
        self._everyone.flags.writeable = False
        self._generators: list[np.random.Generator | None] = [None] * num_envs

    # What a task must define, and may. Hooks without `copies` concern all copies at once.

    @abstractmethod
    def _draw(self, generator: np.random.Generator) -> Float:
        """Everything random about one start, as one vector [D]."""

    @abstractmethod
    def _start(self, copies: Index, draws: Float | None) -> None:
        """Puts the copies [n] at a start: at random by draws [n, D], or the nominal one (None)."""

    @abstractmethod
    def _advance(self, actions: Float) -> None:
        """One control step of every copy; actions [N, A] are finite."""

    @abstractmethod
    def _observe(self) -> Observation:
        """The observations [N, S], in a new array."""

    @abstractmethod
    def _reward_terms(self) -> dict[str, Float]:
        """The terms, each [N], whose sum is the reward of the step just made."""

    def _terminated(self) -> Bool:
        """Which copies [N] have reached a state that ends the episode; by default none."""
        return np.zeros(self.num_envs, np.bool_)

    def _facts(self) -> dict[str, NDArray[Any]]:
        """What `info` says about the present state, each [N, ...], in new arrays."""
        return {"position": self.position}

    @property
    @abstractmethod
    def position(self) -> Float:
        """Where each copy is, [N, 2], metres where metres mean something; a new array."""

    def _notice(self, copies: Index, *, started: bool) -> None:
        """Called for copies [n] that have just started or moved; updates a task's episode state."""

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """Relabellings that leave dynamics and reward unchanged, identity first."""
        raise NotImplementedError

    # Gymnasium's side.

    def _generator(self, copy: int) -> np.random.Generator:
        generator = self._generators[copy]
        if generator is None:
            generator, _ = seeding.np_random()
            self._generators[copy] = generator
        return generator

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, Info]:
        """Starts new episodes.

        Args:
            seed: an int seeds copy i with `seed + i`; a sequence gives each copy its own (None
                keeps that copy's stream); None keeps every stream.
            options: `reset_mask`, [N] bool, restarts only those copies; `randomize` (default
                True), when False, starts these episodes and the ones that follow automatically
                from the nominal pose.

        Returns:
            Observations [N, S] of all copies, and info.

        Raises:
            ValueError: for an unknown option, or a mask or list of seeds of the wrong shape.
        """
        options = {} if options is None else options
        unknown = sorted(set(options) - {"reset_mask", "randomize"})
        if unknown:
            raise ValueError(
                f"unknown reset option {unknown[0]!r}; there are 'reset_mask' and 'randomize'"
            )
        if seed is None:
            seeds: Sequence[int | None] = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            seeds = [int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"got {len(seeds)} seeds for {self.num_envs} copies; give one each")
        mask = self._everyone
        if options.get("reset_mask") is not None:
            mask = np.asarray(options["reset_mask"])
            if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
                raise ValueError(
                    f"reset_mask must be a bool array of shape ({self.num_envs},) with at least "
                    f"one True, got {mask.dtype} {mask.shape} with {int(mask.sum())} set"
                )
        for copy, given in enumerate(seeds):
            if mask[copy] and given is not None:
                self._generators[copy], _ = seeding.np_random(int(given))
        if not (self._started | mask).all():
            raise ResetNeeded("the first reset must be of all copies, without a reset_mask")
        self._randomize[mask] = bool(options.get("randomize", True))
        self._begin(np.flatnonzero(mask))
        return self._observe(), self._info(dict.fromkeys(self._reward_terms(), 0.0))

    def step(self, actions: Any) -> tuple[Observation, Float, Bool, Bool, Info]:
        """One control step of every copy, and a new episode for each copy whose episode ended.

        Args:
            actions: [N, A] in the task's own units; clipped to the action space.

        Returns:
            Observations [N, S] float32, rewards [N] float64, terminated [N] bool, truncated [N]
            bool, info; the module's docstring says which state each of them describes.

        Raises:
            ResetNeeded: before the first reset.
            ValueError: if the actions have the wrong shape or are not finite.
            UnstableSimulationError: if the physics of a copy diverges; all must be reset then.
        """
        terms, terminated = self._transition(actions)
        truncated = self._truncated()
        observations = self._observe()
        done = terminated | truncated
        if done.any():
            last = observations, self._facts()
            self._begin(np.flatnonzero(done))
            observations = self._observe()
            info = self._info(terms)
            info["final_obs"], facts = last
            info["_final_obs"] = info["_final_info"] = done
            for name, values in terms.items():
                facts[f"reward/{name}"] = values
            info["final_info"] = facts | {f"_{name}": done for name in facts}
        else:
            info = self._info(terms)
        return observations, _total(terms), terminated, truncated, info

    def step_without_reset(self, actions: Any) -> tuple[Observation, Float, Bool, Bool, Info]:
        """As `step`, but an episode that ended is left at its end, as a single `Env` leaves it."""
        terms, terminated = self._transition(actions)
        return self._observe(), _total(terms), terminated, self._truncated(), self._info(terms)

    def use_generator(self, copy: int, generator: np.random.Generator) -> None:
        """Makes a copy draw its starts from the caller's generator."""
        self._generators[copy] = generator

    @abstractmethod
    def _frames(self) -> tuple[NDArray[np.uint8], ...]:
        """A picture [height, width, 3] of each copy at its present state."""

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Pictures of all copies, N of [height, width, 3] uint8; None without a render mode."""
        if self.render_mode is None:
            return None
        if not self._started.all():
            raise ResetNeeded("call reset() before render()")
        return self._frames()

    def _transition(self, actions: Any) -> tuple[dict[str, Float], Bool]:
        """One control step without resets: (reward terms, terminated)."""
        if not self._started.all():
            raise ResetNeeded("call reset() before step()")
        actions = np.asarray(actions, np.float64)
        if actions.shape != self._action_shape:
            raise ValueError(f"actions must have shape {self._action_shape}, got {actions.shape}")
        if not np.isfinite(actions).all():
            copy = int(np.flatnonzero(~np.isfinite(actions).all(axis=1))[0])
            raise ValueError(
                f"the action of copy {copy} at its step {self._elapsed[copy]} is not finite: "
                f"{actions[copy]}"
            )
        try:
            self._advance(actions)
        except Exception:
            self._started[:] = False  # the copies are in an undefined state
            raise
        self._elapsed += 1
        self._notice(self._all_copies, started=False)
        return self._reward_terms(), self._terminated()

    def _truncated(self) -> Bool:
        if self.max_episode_steps is None:
            return np.zeros(self.num_envs, np.bool_)
        return self._elapsed >= self.max_episode_steps

    def _begin(self, copies: Index) -> None:
        at_random = self._randomize[copies]
        if at_random.any():
            drawn = copies[at_random]
            self._start(drawn, np.stack([self._draw(self._generator(int(c))) for c in drawn]))
        if not at_random.all():
            self._start(copies[~at_random], None)
        self._elapsed[copies] = 0
        self._notice(copies, started=True)
        self._started[copies] = True

    def _info(self, terms: dict[str, Any]) -> Info:
        info: Info = self._facts()
        for name, values in terms.items():
            info[f"reward/{name}"] = np.broadcast_to(values, (self.num_envs,)).astype(np.float64)
        # Gymnasium pairs every key with a mask of the copies that it applies to: here, all.
        return info | {f"_{name}": self._everyone for name in info}


def _total(terms: dict[str, Float]) -> Float:
    """The sum of the reward terms, [N]."""
    values = iter(terms.values())
    total = next(values).copy()
    for value in values:
        total += value
    return total
