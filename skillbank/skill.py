"""A skill: a soft Q-function, a sampling network that draws from exp(Q / alpha), and its spec.

NumPy in and out, actions in the environment's own units; torch inside.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skillbank import durable, storage, variants
from skillbank.bank_folder import means_file
from skillbank.config import bare_name
from skillbank.errors import IncompatibleSkill, InvalidArgument, SkillNotFound, warn
from skillbank.networks import (
    Critic,
    FlowSampler,
    NoiseSampler,
    Sampler,
    flat_arrays,
    load_flat_arrays,
    log_squash,
    make_sampler,
)
from skillbank.operators import Composable
from skillbank.soft_value import soft_value
from skillbank.spec import MAX_PARENTS, ObservationBlock, SkillSpec, block_columns
from skillbank.symmetry import Symmetries
from skillbank.task import Layout, TaskLike, layout_of
from skillbank.versions import warn_of_another_mujoco

Array = NDArray[Any]
VALUE_SAMPLES = 256  # proposals per state for the soft value of a skill
CANDIDATES = 32  # sampled actions of which a deterministic prediction takes the best


class Skill(Composable):
    """A maximum-entropy policy with its soft Q-function and its metadata.

    Args:
        spec: The metadata.
        parameters: All parameters listed by ``spec.parameter_shapes``, float32.
        content_hash: Content hash of the skill's file; None if it was never saved.
    """

    spec: SkillSpec

    def __init__(
        self,
        spec: SkillSpec,
        parameters: Mapping[str, NDArray[np.float32]],
        content_hash: str | None = None,
    ) -> None:
        super().__init__(spec, spec.seed)
        self.content_hash = content_hash
        sizes = (spec.observation_size, spec.action_size)
        self.critic = Critic(spec.architecture, *sizes)
        self.target_critic = Critic(spec.architecture, *sizes)
        self.sampler: Sampler = make_sampler(spec.architecture, *sizes)
        self.anchor = FlowSampler(spec.architecture, *sizes) if spec.anchored else None
        load_flat_arrays(self.networks(), parameters)
        for network in self.networks().values():
            network.requires_grad_(False)
        self.noise_set = torch.from_numpy(parameters["noise"].copy()) if spec.noise_set else None
        self.symmetries = Symmetries(spec.symmetries) if spec.symmetries else None

    def __repr__(self) -> str:
        content = "not saved" if self.content_hash is None else self.content_hash[:8]
        task = bare_name(self.spec.env_id)
        return f"<Skill {self.spec.name}: {task}, {self.spec.steps:,} steps, {content}>"

    def networks(self) -> dict[str, Critic | Sampler]:
        """The networks by their name in a skill file."""
        parts: dict[str, Critic | Sampler] = {
            "critic": self.critic,
            "target_critic": self.target_critic,
            "sampler": self.sampler,
        }
        return parts | ({"anchor": self.anchor} if self.anchor else {})

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all parameters, by their names in ``spec.parameter_shapes``."""
        arrays = flat_arrays(self.networks())
        return arrays | ({} if self.noise_set is None else {"noise": self.noise_set.numpy().copy()})

    # Values and actions; for Q-values see ``Composable.q``.

    @torch.no_grad()
    def value(self, obs: ArrayLike, seed: int = 0) -> NDArray[np.float32]:
        """Soft value (eq. 10) [B], with respect to actions scaled to [-1, 1]^A.

        Proposals are drawn from the sampling network, weighted by its density; for a noise-fed
        network they are uniform. For a finite noise set, this is the soft value of the set,
        ``alpha log mean_i exp(Q(s, f(xi_i; s)) / alpha)``.
        """
        states, alpha = self.observed(obs), self.spec.temperature
        generator = torch.Generator().manual_seed(int(seed))
        if self.noise_set is not None:
            u = self.sampler.push(states, self.noise_set.expand(len(states), -1, -1))
            q = self.tensor_q(states, torch.tanh(u), u)
            return soft_value(q, torch.zeros_like(q), alpha).numpy()
        shape = (len(states), VALUE_SAMPLES, self.spec.action_size)
        if isinstance(self.sampler, NoiseSampler):
            action = torch.rand(shape, generator=generator) * 2.0 - 1.0
            log_weight = torch.full(shape[:2], self.spec.action_size * math.log(2.0))
            return soft_value(self.tensor_q(states, action), log_weight, alpha).numpy()
        u, log_q = self.sampler(states, torch.randn(shape, generator=generator))
        q = self.tensor_q(states, torch.tanh(u), u)
        return soft_value(q, log_squash(u) - log_q, alpha).numpy()

    @torch.no_grad()
    def sample(self, obs: ArrayLike, n: int, seed: int | None = None) -> Array:
        """Sample ``n`` actions per state from the sampling network, in the environment's units.

        Args:
            obs: [B, S].
            n: Actions per state.
            seed: The same seed gives the same actions; None: use the skill's own generator.

        Returns:
            [B, n, A].
        """
        if n < 1:
            raise InvalidArgument(f"n must be at least 1, got {n}")
        return self.unscaled(self._draw(self.observed(obs), n, self._chance(seed)))

    @torch.inference_mode()  # a tenth faster than no_grad
    def _one_each(self, obs: Tensor, deterministic: bool) -> Tensor:
        if not deterministic:
            return self._draw(obs, 1, self._generator).squeeze(1)
        noise = self.noise_set
        if noise is None:
            fixed = torch.Generator().manual_seed(0)
            noise = torch.randn(CANDIDATES, self.spec.action_size, generator=fixed)
            noise[0] = 0.0
        u = self.sampler.push(obs, noise.expand(len(obs), -1, -1))
        action = torch.tanh(u)
        best = self.tensor_q(obs, action, u).argmax(1)
        return action[torch.arange(len(obs)), best]

    # Saving and loading.

    def stored(self) -> tuple[SkillSpec, dict[str, NDArray[np.float32]]]:
        """The contents of its skill file: spec and parameters."""
        return self.spec, self.parameters()

    @classmethod
    def from_stored(cls, stored: storage.StoredSkill) -> "Skill":
        """Create the skill from the contents of a file."""
        return cls(stored.spec, stored.parameters, stored.content_hash)

    def save(self, path: str | Path) -> None:
        """Write one HDF5 file, atomically and durably.

        Raises:
            StorageError: It cannot be written; an existing file is unchanged.
        """
        self.content_hash = storage.write(durable.as_path(path), *self.stored())

    @classmethod
    def load(cls, path: str | Path) -> "Skill":
        """Read a skill file, and warn if the skill was made with another version of MuJoCo.

        Raises:
            SkillFileError: The file is damaged or not a skill; no part of it is used.
            SkillNotFound: There is no such file.
        """
        try:
            stored = storage.read(durable.as_path(path))
        except SkillNotFound as error:
            if means_file(str(path)):
                raise
            raise SkillNotFound(
                f"{error}. A skill of the bank is loaded by skillbank.Bank().load('{path}')"
            ) from error
        warn_of_another_mujoco(path, stored.spec)
        return cls.from_stored(stored)

    def as_parents(self) -> tuple[str, ...]:
        """The content hashes that a skill derived from this one lists as its parents.

        That is this skill's own hash. If it was never saved, no bank knows that hash, so those of
        its own parents are added.
        """
        if self.content_hash:
            return (self.content_hash,)
        return (storage.content_hash(*self.stored()), *self.spec.parents)[:MAX_PARENTS]

    def with_spec(self, **changes: Any) -> "Skill":
        """The same networks with a changed spec (a name, an evaluation, ...)."""
        whole = SkillSpec.model_validate(self.spec.model_dump() | changes)
        spec = self.spec.model_copy(update={key: getattr(whole, key) for key in changes})
        kept = self.content_hash if not changes else None
        return self._continued(Skill(spec, self.parameters(), kept))

    def at_temperature(self, temperature: float) -> "Skill":
        """The same policy with Q and reward scaled to another temperature."""
        return self._child(*variants.at_temperature(self.spec, self.parameters(), temperature))

    def turned(self, angle: float) -> "Skill":
        """A skill that does towards ``angle`` (rad) what this one does towards 0, exactly.

        Raises:
            IncompatibleSkill: It has no observation block ``heading``, or it observes its position.
        """
        return self._child(*variants.turned(self.spec, self.parameters(), angle))

    def _child(self, spec: SkillSpec, parameters: variants.Parameters) -> "Skill":
        child = Skill(spec.model_copy(update={"parents": self.as_parents()}), parameters)
        return self._continued(child)

    # Fitting it to a task.

    def fitted_to(self, task: TaskLike) -> "Skill":
        """This skill for the observations of a task; unknown blocks are added with zero weights.

        Its Q-values and actions are unchanged. Warns if the task has the id of the skill's own
        task, but simulates another model.

        Args:
            task: A Gymnasium id, the bare name of one of skillbank's tasks, or an environment
                instance, single or vectorised.

        Raises:
            IncompatibleSkill: A block is missing or has another size, or the actions differ.
            UnsupportedEnvironment: The id is unknown, or its spaces are not supported.
        """
        task = layout_of(task)
        own, theirs = self.spec.observation_blocks, task.observation_blocks
        low, high = tuple(task.action_low.tolist()), tuple(task.action_high.tolist())
        bounds = self.spec.action_low, self.spec.action_high
        if block_columns(own, theirs) is None or (low, high) != bounds:
            raise IncompatibleSkill(_side_by_side(self.spec, task, low, high))
        models = (self.spec.model_hash, task.model_hash)
        if self.spec.env_id == task.env_id and None not in models and models[0] != models[1]:
            warn(
                f"'{self.spec.name}' was trained on another model of {task.env_id} (sha256 "
                f"{models[0]:.8}..., here {models[1]:.8}...): its results may differ here",
            )
        if own == theirs:
            return self
        wider = variants.widened(self.spec, self.parameters(), theirs)
        return self._continued(Skill(*wider, self.content_hash))

    def known_blocks(self) -> set[ObservationBlock]:
        """The blocks that it uses; not those that ``fitted_to`` added with zero weights."""
        weights = [network["0.weight"] for network in self.networks().values()]
        known, start = set(), 0
        for block in self.spec.observation_blocks:
            rows = slice(start, start + block.size)  # of [S (+ A), H], of critics [C, S + A, H]
            if any(bool(weight[..., rows, :].any()) for weight in weights):
                known.add(block)
            start += block.size
        return known

    # Internals.

    def tensor_q(self, obs: Tensor, action: Tensor, u: Tensor | None = None) -> Tensor:
        """Q-values [B, K] of scaled actions [B, K, A].

        ``u``, the actions before squashing, makes the anchor's density of saturated actions more
        accurate.
        """
        q: Tensor = self.critic(obs, action).amin(0)
        if self.anchor is None:
            return q
        return q + self.spec.temperature * self.anchor.log_action_density(obs, action, u)

    def _draw(self, obs: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Sample scaled actions [B, n, A] with fresh noise, or with members of the noise set.

        A random symmetry of the skill is applied for each action.
        """
        if self.noise_set is None:
            noise = torch.randn((len(obs), n, self.spec.action_size), generator=generator)
        else:
            pick = torch.randint(len(self.noise_set), (len(obs), n), generator=generator)
            noise = self.noise_set[pick]
        if self.symmetries is None:
            return torch.tanh(self.sampler.push(obs, noise))
        which = self.symmetries.draw(len(obs) * n, generator)
        repeated = obs.unsqueeze(1).expand(-1, n, -1).flatten(0, 1)
        seen = self.symmetries.obs(repeated, which)  # [B * n, S]
        action = torch.tanh(self.sampler.push(seen, noise.flatten(0, 1).unsqueeze(1)))
        return self.symmetries.undo_action(action, which).view_as(noise)


def _side_by_side(
    spec: SkillSpec, task: Layout, low: Sequence[float], high: Sequence[float]
) -> str:
    own = {block.name: block.size for block in spec.observation_blocks}
    theirs = {block.name: block.size for block in task.observation_blocks}
    lines = [
        f"skill '{spec.name}' does not fit {task.env_id}; the task must have all of its blocks:",
        f"  {'block':<20} {'skill':>8} {'task':>8}",
    ]
    for name in own | theirs:
        mine, other = own.get(name, "-"), theirs.get(name, "-")
        mark = "  <--" if name in own and mine != other else ""
        lines.append(f"  {name:<20} {mine!s:>8} {other!s:>8}{mark}")
    actions = (f"{len(spec.action_low)}", f"{len(low)}")
    differ = (tuple(low), tuple(high)) != (spec.action_low, spec.action_high)
    lines.append(f"  {'actions':<20} {actions[0]:>8} {actions[1]:>8}{'  <--' if differ else ''}")
    if differ:
        lines.append(f"  action bounds: skill {spec.action_low} to {spec.action_high},")
        lines.append(f"                 task  {tuple(low)} to {tuple(high)}")
    return "\n".join(lines)
