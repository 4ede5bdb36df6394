"""Q-values of several skills at once: critics of the same shape are evaluated as one batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillbank.compose.expression import Leaf
from skillbank.networks import Critic
from skillbank.skill import Skill
from skillbank.spec import SkillSpec

Arrays = dict[str, NDArray[np.float32]]  # of one skill's critics, by the parameter's name


class SkillCritics:
    """The skills' critics; those of the same shape are evaluated as one batch.

    A skill's Q is invariant under its symmetries, but its network only approximately, and small
    differences decide between the composed skills: averaging over the symmetries makes it exact.
    A learner that evaluates the critics many times may use one random symmetry instead, drawn anew
    by ``look``.
    """

    def __init__(self, leaves: Sequence[Leaf], fitted: Sequence[Skill], averaged: bool) -> None:
        groups: dict[Any, tuple[list[tuple[Leaf, Skill]], list[Arrays]]] = {}
        for leaf, skill in zip(leaves, fitted, strict=True):
            shape, views = skill.spec.architecture, _views(skill)
            key = (shape.critics, shape.critic_hidden, shape.layer_norm, len(views))
            members, stack = groups.setdefault(key, ([], []))
            members.append((leaf, skill))
            stack.extend(views)
        self._averaged = averaged
        self._groups = [(members, stack) for members, stack in groups.values()]
        self.look(None)

    def look(self, generator: torch.Generator | None) -> None:
        """Evaluate the skills under one symmetry, drawn at random; None: under the first."""
        if generator is not None and self._averaged:
            return  # Q is averaged over all of them
        self._batches = []
        for members, stack in self._groups:
            views = len(stack) // len(members)
            seen = list(stack)
            if not self._averaged:
                which = [0] * len(members)
                if generator is not None:  # the same one for all, so that equal skills stay equal
                    which = [int(torch.randint(views, (), generator=generator))] * len(members)
                seen = [stack[views * i + view] for i, view in enumerate(which)]
            self._batches.append((_stacked(members[0][1].spec, seen), members))

    def __call__(self, obs: Tensor, action: Tensor) -> dict[Leaf, Tensor]:
        """Q of each skill at scaled actions [B, K, A]: [B, K] each."""
        found = {}
        for critic, members in self._batches:
            q = critic(obs, action)  # [skills * views * C, B, K]
            each = members[0][1].spec.architecture.critics
            views = len(q) // (len(members) * each)
            q = q.view(len(members), views, each, *q.shape[1:]).amin(2).mean(1)
            for (leaf, skill), own in zip(members, q, strict=True):
                found[leaf] = own
                if skill.anchor is not None:  # its Q includes alpha log pi_0
                    prior = skill.anchor.log_action_density(obs, action)
                    found[leaf] = own + skill.spec.temperature * prior
        return found


def _views(skill: Skill) -> list[Arrays]:
    """Parameters of the critics under each symmetry: as if their inputs were relabelled.

    A relabelling permutes the inputs and flips signs, which equals doing so to the rows of the
    first layer. An anchored skill, whose Q adds a prior to its networks', keeps only the identity.
    """
    own = skill.critic.arrays()
    if skill.anchor is not None or not skill.spec.symmetries:
        return [own]
    size, weight = skill.spec.observation_size, own["0.weight"]  # [C, S + A, H]
    views = []
    for one in skill.spec.symmetries:
        rows = np.concatenate([one.obs_index, size + np.asarray(one.action_index)])
        sign = np.concatenate([one.obs_sign, one.action_sign]).astype(np.float32)
        seen = np.empty_like(weight)
        seen[:, rows] = weight * sign[:, np.newaxis]
        views.append(own | {"0.weight": seen})
    return views


def _stacked(spec: SkillSpec, arrays: list[Arrays]) -> Critic:
    """Critics of the shape of ``spec``, as one batch."""
    count = len(arrays) * spec.architecture.critics
    # not validated: a file's critic has at most four members, a batch of several may have more
    architecture = spec.architecture.model_copy(update={"critics": count})
    critic = Critic(architecture, spec.observation_size, spec.action_size)
    critic.load_arrays({name: np.concatenate([a[name] for a in arrays]) for name in arrays[0]})
    critic.requires_grad_(False)
    return critic
