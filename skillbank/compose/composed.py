"""A composed skill: it has the interface of a skill, and knows the reward that it is for."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skillbank.compose import acting as drawing
from skillbank.compose import expression
from skillbank.compose.acting import Acting, Chance, Cloud
from skillbank.compose.compatibility import check_together, widest_layout
from skillbank.compose.critics import SkillCritics
from skillbank.compose.expression import Atom, Best, Corrected, Leaf, Node
from skillbank.errors import IncompatibleSkill, InvalidArgument, SkillbankError
from skillbank.operators import Composable
from skillbank.skill import Skill
from skillbank.soft_value import soft_value
from skillbank.spec import ObservationBlock, Symmetry, block_columns, blocks_text
from skillbank.task import Layout, TaskLike, layout_of

if TYPE_CHECKING:
    from skillbank.compose.certificate import Certificate
    from skillbank.compose.correction import Correction, CorrectionConfig
    from skillbank.compose.distillation import DistillConfig
    from skillbank.replay import Replay
    from skillbank.training import Hooks

Array = NDArray[Any]
VALUE_FACTOR = 8  # candidates for a soft value, as a multiple of those for an action


@dataclass(frozen=True)
class ComposedSpec:
    """The description of a composed skill; fields are named as in a skill's spec."""

    name: str  # the expression, for example 0.5 east + 0.5 north
    reward: str  # the reward it is for, in terms of the parts' rewards r[name]
    temperature: float
    discount: float
    env_id: str  # of the part with the most observation blocks
    env_kwargs: Mapping[str, Any]  # those on which all parts agree
    disputed: Mapping[str, tuple[Any, ...]]  # those on which they differ; None where not given
    observation_blocks: tuple[ObservationBlock, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_dtype: Literal["float32", "float64"]
    parents: tuple[str, ...]  # content hashes of all skills in it
    symmetries: tuple[Symmetry, ...] = ()  # shared by all its skills
    reward_scale: float = 1.0  # the parts' own scales are in the reward

    @property
    def observation_size(self) -> int:
        """S, the length of the observation vector."""
        return sum(block.size for block in self.observation_blocks)

    @property
    def action_size(self) -> int:
        """A, the length of the action vector."""
        return len(self.action_low)


class Drawn(NamedTuple):
    """Actions, and how good a sample of the composed policy they are."""

    action: Array  # [B, n, A], in the environment's units
    q: NDArray[np.float32]  # [B, n]
    sample_size: NDArray[np.float32]  # effective number of candidates [B]
    candidates: int  # total number of candidates


class Composed(Composable):
    """An expression over skills, evaluated on demand.

    Args:
        node: The expression.
        layout: Observation and actions; None: those of the skill that observes all blocks.
        acting: How candidates for actions are found.
        joined: The operator and its operands, if ``&`` or ``|`` made it.

    Raises:
        IncompatibleSkill: The skills cannot be composed; the message shows where they differ, or
            which one cannot be subtracted.
    """

    spec: ComposedSpec

    def __init__(
        self,
        node: Node,
        layout: Layout | None = None,
        acting: Acting | None = None,
        joined: tuple[str, tuple[Node, ...]] | None = None,
    ) -> None:
        self.node, self.joined, self.acting = node, joined, acting or Acting()
        skills = [leaf.skill for leaf in expression.leaves(node)]
        check_together(skills)
        expression.check_priors(node)
        self._layout = layout or widest_layout(skills, expression.corrections(node))
        self.parts = tuple(skill.fitted_to(self._layout) for skill in skills)
        first = skills[0].spec
        # env_kwargs belong to the parts' own task, not to another one that they were fitted to.
        own = self._layout.env_id in {skill.spec.env_id for skill in skills}
        names = {name: None for skill in skills for name in skill.spec.env_kwargs if own}
        made = {name: tuple(s.spec.env_kwargs.get(name) for s in skills) for name in names}
        spec = ComposedSpec(
            name=expression.name_of(node),
            reward=expression.reward_text(node, first.temperature),
            temperature=first.temperature,
            discount=first.discount,
            env_id=self._layout.env_id,
            env_kwargs={name: values[0] for name, values in made.items() if len(set(values)) == 1},
            disputed={name: values for name, values in made.items() if len(set(values)) > 1},
            observation_blocks=self._layout.observation_blocks,
            action_low=first.action_low,
            action_high=first.action_high,
            action_dtype=first.action_dtype,
            parents=expression.parents(node),
            symmetries=_symmetries(node, self.parts),
        )
        super().__init__(spec, seed=0)
        self.critics = SkillCritics(expression.leaves(node), self.parts, self.acting.averaged)
        self._proposals = [drawing.proposal_of(skill) for skill in self.parts]
        self.sample_size = float("nan")  # mean effective number of candidates of the last actions

    def __repr__(self) -> str:
        return f"<Composed {self.spec.name}>"

    # Values and reward; Q itself is ``Composable.q``.

    def value(self, obs: ArrayLike, seed: int = 0) -> NDArray[np.float32]:
        """Soft value of the composed Q (eq. 10) [B], over actions scaled to [-1, 1]^A."""
        generator = torch.Generator().manual_seed(int(seed))
        cloud = self.candidates(self.observed(obs), generator, self.acting.enlarged(VALUE_FACTOR))
        return soft_value(cloud.q, cloud.log_base, self.spec.temperature).numpy()

    def reward(self, rewards: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """The reward that it is for, from its parts' rewards by skill name."""
        return expression.reward_of(self.node, rewards, self.spec.temperature)

    # Acting.

    def draw(
        self,
        obs: ArrayLike,
        n: int = 1,
        seed: int | None = None,
        *,
        deterministic: bool = False,
    ) -> Drawn:
        """Actions of the composed policy, with the effective number of candidates behind them.

        Args:
            obs: [B, S].
            n: Actions per state.
            seed: The same seed gives the same actions; None continues the skill's own stream.
            deterministic: Take the actions with the highest Q, found by a further search around the
                best candidates, instead of random ones; best first.
        """
        if n < 1:
            raise InvalidArgument(f"n must be at least 1, got {n}")
        states, generator = self.observed(obs), self._chance(seed)
        action, q, sizes, count = self.drawn(states, n, generator, deterministic)
        return Drawn(self.unscaled(action), q.numpy(), sizes.numpy(), count)

    def drawn(
        self, obs: Tensor, n: int, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """``draw`` on tensors: scaled actions [B, n, A], Q [B, n], sizes [B] and the count."""
        alpha, acting = self.spec.temperature, self.acting
        smallest = acting.per_part * len(self._proposals) + acting.uniform + acting.refined
        enough = acting.enlarged(max(1, math.ceil(2 * n / smallest))) if n > 1 else acting
        chance = Chance(generator, alike=deterministic)
        cloud = self.candidates(obs, chance, enough)
        sizes = cloud.sample_size(alpha)
        self.sample_size = float(sizes.mean())
        u, q = drawing.chosen(
            obs, cloud, n, self.tensor_q, alpha, acting, chance, best=deterministic
        )
        return torch.tanh(u), q, sizes, cloud.q.shape[1]

    def sample(self, obs: ArrayLike, n: int, seed: int | None = None) -> Array:
        """``n`` actions for each state [B, S] -> [B, n, A], in the environment's own units."""
        return self.draw(obs, n, seed).action

    def _one_each(self, obs: Tensor, deterministic: bool) -> Tensor:
        generator = self._chance(0 if deterministic else None)
        return self.drawn(obs, 1, generator, deterministic)[0].squeeze(1)

    # Variants of the same skill.

    def fitted_to(self, task: TaskLike) -> "Composed":
        """The same skill on a task's observations; blocks that no part observes are ignored.

        Args:
            task: A Gymnasium id, or the bare name of one of skillbank's tasks; or an environment
                that was made, single or vectorised.

        Raises:
            IncompatibleSkill: A block is missing or has another size, or the actions differ.
            UnsupportedEnvironment: The id is unknown, or its spaces cannot be used.
        """
        layout = layout_of(task)
        same = layout.observation_blocks == self.spec.observation_blocks
        if (
            same
            and np.array_equal(layout.action_low, self._low)
            and np.array_equal(layout.action_high, self._high)
        ):
            for part in self.parts:
                part.fitted_to(layout)  # warns if the task has another model
            return self
        return self._continued(Composed(self.node, layout, self.acting, self.joined))

    def acting_with(self, **changes: Any) -> "Composed":
        """The same skill with other settings for its candidates (see ``Acting``)."""
        return self._continued(
            Composed(self.node, self._layout, self.acting.changed(**changes), self.joined)
        )

    def at_temperature(self, temperature: float) -> "Composed":
        """The same policy at another temperature; see ``Skill.at_temperature``."""
        operator, operands = self.joined or ("", ())
        node, *nodes = rescaled((self.node, *operands), temperature)
        joined = (operator, tuple(nodes)) if self.joined else None
        return self._continued(Composed(node, self._layout, self.acting, joined))

    def replaced(self, node: Node) -> "Composed":
        """Another expression over the same skills, on the same observation if it has all blocks."""
        blocks = {block for one in expression.corrections(node) for block in one.blocks}
        enough = blocks <= set(self._layout.observation_blocks)
        return self._continued(Composed(node, self._layout if enough else None, self.acting))

    # Measuring and correcting the error of composing.

    def certificate(
        self,
        env_id: str | None = None,
        *,
        episodes: int = 32,
        steps: int | None = None,
        seed: int = 0,
        hooks: "Hooks | None" = None,
        env_kwargs: dict[str, Any] | None = None,
    ) -> "Certificate":
        """Estimate how far from optimal the composed policy can be, along states that it visits.

        Args:
            env_id: A task with the same dynamics as the parts' tasks, and any reward; None: the
                parts' own.
            episodes: Number of episodes to run.
            steps: Steps of each episode; None for whole episodes.
            seed: Seeds the episodes.
            hooks: Progress and stopping.
            env_kwargs: Keyword arguments of the environment.

        Raises:
            IncompatibleSkill: There is no certificate for this kind of composition.
            Interrupted: The hooks stopped it.
        """
        from skillbank.compose.certificate import certify

        return certify(
            self,
            env_id,
            episodes=episodes,
            steps=steps,
            seed=seed,
            hooks=hooks,
            env_kwargs=env_kwargs,
        )

    def corrected(
        self,
        env_id: str | None = None,
        config: "CorrectionConfig | None" = None,
        *,
        transitions: "Replay | None" = None,
        seed: int = 0,
        hooks: "Hooks | None" = None,
        env_kwargs: dict[str, Any] | None = None,
    ) -> "Composed":
        """Learn the error of composing and subtract it from Q, which makes the skill soft-optimal.

        Args:
            env_id: A task with the same dynamics as the parts' tasks, and any reward; None: the
                parts' own.
            config: How the correction is learned.
            transitions: Learn from these instead of gathering any. Their actions are scaled to
                [-1, 1]; their rewards are ignored.
            seed: Seeds the episodes, the parameters and all sampling.
            hooks: Progress, warnings and stopping. The correction learned so far is saved to the
                checkpoint's path at each report, when stopped and on an error.
            env_kwargs: Keyword arguments of the environment.

        Raises:
            IncompatibleSkill: There is nothing to correct, or the transitions do not fit.
            Interrupted: The hooks stopped it; the message says what was saved.
            StorageError: No correction can be written to the checkpoint's path.
            SkillbankError: A file that is not a correction is there.
            TrainingDiverged: It diverged; the correction of the last report is kept.
        """
        from skillbank.compose.correction import corrected

        return corrected(
            self,
            env_id,
            config,
            transitions=transitions,
            seed=seed,
            hooks=hooks,
            env_kwargs=env_kwargs,
        )

    @property
    def correction(self) -> "Correction | None":
        """The correction that its Q has subtracted, if ``corrected`` or ``with_correction`` did."""
        return self.node.correction if isinstance(self.node, Corrected) else None

    def with_correction(self, correction: "Correction") -> "Composed":
        """The same composition with a correction learned earlier; the order of terms is free.

        Raises:
            IncompatibleSkill: It was learned for another composition, or for other actions.
        """
        mine = expression.outline(self.node)
        if correction.action_size != self.spec.action_size:
            raise IncompatibleSkill(
                f"the correction is for actions of {correction.action_size} numbers; "
                f"{self.spec.name} has {self.spec.action_size}"
            )
        if expression.unordered(correction.about) != expression.unordered(mine):
            raise IncompatibleSkill(
                f"the correction is for {json.dumps(correction.about)},\n"
                f"not for              {json.dumps(mine)}"
            )
        return self.replaced(Corrected(self.node, correction))

    def distill(
        self,
        env_id: str | None = None,
        config: "DistillConfig | None" = None,
        *,
        name: str | None = None,
        seed: int = 0,
        hooks: "Hooks | None" = None,
        env_kwargs: dict[str, Any] | None = None,
    ) -> Skill:
        """Distil into one ordinary skill, with its own critics and sampling network.

        Args:
            env_id: A task with the same dynamics as the parts' tasks, and any reward; None: the
                parts' own.
            config: How it is learned.
            name: The new skill's name.
            seed: Seeds the episodes, the parameters and all sampling.
            hooks: Progress and stopping.
            env_kwargs: Keyword arguments of the environment.

        Raises:
            Interrupted: The hooks stopped it.
        """
        from skillbank.compose.distillation import distill

        return distill(
            self, env_id, config, name=name, seed=seed, hooks=hooks, env_kwargs=env_kwargs
        )

    def save(self, path: Any) -> None:
        """Always fails: only ordinary skills can be saved.

        Raises:
            SkillbankError: Always; the message points to ``distill``.
        """
        raise SkillbankError(
            f"a composition cannot be saved to {path}; distill() turns a composition into a skill"
        )

    # Internal; used by the learners.

    def tensor_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """Composed Q of scaled actions [B, K, A] -> [B, K]."""
        own = {} if isinstance(self.node, Best) else self.critics(obs, action)
        return self._fold(self.node, obs, action, own)

    def part_qs(self, obs: Tensor, action: Tensor, node: Node | None = None) -> dict[Atom, Tensor]:
        """Q of each atom of an expression at scaled actions [B, K, A] -> [B, K] each.

        The expression is ``node``, over the same skills; None: its own.
        """
        own = self.critics(obs, action)
        atoms = expression.atoms(node or self.node)
        return {atom: self._fold(atom, obs, action, own) for atom in atoms}

    def _fold(self, node: Node, obs: Tensor, action: Tensor, own: dict[Leaf, Tensor]) -> Tensor:
        def atom(part: Atom) -> Tensor:
            if isinstance(part, Leaf):
                return own[part]
            if isinstance(part, Corrected):
                seen = obs[:, self.columns(part.correction.blocks)]
                lacking: Tensor = part.correction(seen, action)
                return expression.fold(part.node, atom, self.spec.temperature) - lacking
            seen = obs[:, self.columns(part.blocks)]
            qs: list[Tensor] = [network(seen, action).amin(0) for network in part.networks]
            return torch.stack(qs).amax(0)

        return expression.fold(node, atom, self.spec.temperature)

    def columns(self, blocks: Sequence[ObservationBlock]) -> Any:
        """An index of the observation's columns that hold these blocks."""
        if tuple(blocks) == self.spec.observation_blocks:
            return slice(None)
        columns = block_columns(blocks, self.spec.observation_blocks)
        if columns is None:
            raise IncompatibleSkill(
                f"networks learned for {self.spec.name} observe {blocks_text(blocks)}; "
                f"this observation has {blocks_text(self.spec.observation_blocks)}"
            )
        return torch.from_numpy(columns)

    def candidates(
        self,
        obs: Tensor,
        chance: Chance | torch.Generator,
        acting: Acting | None = None,
        energy: drawing.Energy | None = None,
    ) -> Cloud:
        """Weighted candidates for every state [B, S] (see ``acting``), for its own or another Q."""
        return drawing.candidates(
            obs,
            self._proposals,
            energy or self.tensor_q,
            self.spec.temperature,
            acting or self.acting,
            Chance(chance) if isinstance(chance, torch.Generator) else chance,
        )


def _symmetries(node: Node, parts: Sequence[Skill]) -> tuple[Symmetry, ...]:
    """The symmetries shared by all its skills; none if a learned part may break them.

    Two kinds may: policies evaluated on another task's reward, and a correction that observes
    blocks the skills do not use, such as the position among walls.
    """
    wider = any(not known(parts, one.blocks) for one in expression.corrections(node))
    if wider or any(isinstance(atom, Best) for atom in expression.innermost(node)):
        return ()
    return _common([skill.spec.symmetries for skill in parts])


def known(skills: Iterable[Skill], blocks: Iterable[ObservationBlock]) -> bool:
    """Do all skills use all of these blocks, so that their symmetries cover them?

    A skill ignores blocks that it was only fitted to, such as the position among walls, and stays
    symmetric; the task itself may not be.
    """
    return all(set(blocks) <= skill.known_blocks() for skill in skills)


def _common(declared: Sequence[tuple[Symmetry, ...]]) -> tuple[Symmetry, ...]:
    """The symmetries that are in every tuple, regardless of their names."""

    def key(one: Symmetry) -> tuple[tuple[int, ...], ...]:
        return one.obs_index, one.obs_sign, one.action_index, one.action_sign

    first, *others = declared
    known = [{key(one) for one in symmetries} for symmetries in others]
    return tuple(one for one in first if all(key(one) in keys for keys in known))


def rescaled(nodes: Sequence[Node], temperature: float) -> list[Node]:
    """The same policies at another temperature, for proportionally scaled rewards."""

    @cache  # a skill that occurs twice stays one object
    def change(atom: Atom) -> Node:
        if isinstance(atom, Leaf):
            return Leaf(atom.skill.at_temperature(temperature))
        if isinstance(atom, Corrected):
            before = expression.leaves(atom)[0].skill.spec.temperature
            node = expression.mapped(atom.node, change)
            about = expression.outline(node)
            return Corrected(node, atom.correction.scaled(temperature / before, about))
        raise IncompatibleSkill(
            "policies that were evaluated at one temperature cannot be taken to another: "
            "rescale the parts with at_temperature and evaluate them again"
        )

    return [expression.mapped(node, change) for node in nodes]
