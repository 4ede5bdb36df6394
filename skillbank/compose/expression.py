"""Expressions over skills, and the algebra that evaluates them.

The algebra is the same for Q-functions, soft values and backups. A skill's Q is soft-optimal for
its reward, ``Q_i = r_i + gamma E V_i(s')``. Then

- a weighted sum has ``Q = sum_i w_i Q_i``, whose policy is proportional to
  ``prod_i pi_i^{w_i}`` where all have one temperature;
- a soft-OR has ``Q = alpha log sum_i w_i exp(Q_i / alpha)``, whose policy is a mixture of theirs;
- either of them, minus its learned correction, is soft-optimal itself (see ``correction``).
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skillbank.errors import IncompatibleSkill
from skillbank.networks import Critic
from skillbank.skill import Skill
from skillbank.spec import MAX_PARENTS, ObservationBlock

if TYPE_CHECKING:
    from skillbank.compose.correction import Correction


@dataclass(frozen=True)
class Leaf:
    """A skill."""

    skill: Skill


@dataclass(frozen=True)
class WeightedSum:
    """``sum_i w_i Q_i``, any real weights; see ``check_priors`` for anchored skills."""

    terms: tuple[tuple["Node", float], ...]


@dataclass(frozen=True)
class SoftOr:
    """``alpha log sum_i w_i exp(Q_i / alpha)``; weights are positive and sum to 1."""

    terms: tuple[tuple["Node", float], ...]
    shared: bool = True  # do the rewards differ only on entering absorbing goals that all share?


@dataclass(frozen=True)
class Corrected:
    """``Q - C`` with a learned correction C: soft-optimal for the reward of what it corrects."""

    node: "Node"
    correction: "Correction"


@dataclass(frozen=True)
class Best:
    """``max_i Q_i`` of stored policies evaluated on another reward (see ``improvement``)."""

    parts: tuple["Node", ...]  # whose policies were evaluated
    networks: tuple[Critic, ...]
    blocks: tuple[ObservationBlock, ...]  # the networks' observation
    env_id: str  # the task whose reward they were evaluated on
    reward_scale: float = 1.0  # rewards were multiplied by it


Node = Leaf | WeightedSum | SoftOr | Corrected | Best
Atom = Leaf | Corrected | Best  # everything but sums and soft-ORs


def weighted_sum(terms: Sequence[tuple[Node, float]]) -> Node:
    """A sum in canonical form: nested sums are expanded, and each term occurs once.

    This changes no value, since Q, reward and correction are all linear in the terms.
    """
    weights: dict[Node, float] = {}
    for node, weight in terms:
        inner = node.terms if isinstance(node, WeightedSum) else ((node, 1.0),)
        for part, share in inner:
            weights[part] = weights.get(part, 0.0) + weight * share
    kept = tuple((part, weight) for part, weight in weights.items() if weight)
    kept = kept or tuple(weights.items())[:1]  # a - a: one term of weight 0, the uniform policy
    return kept[0][0] if len(kept) == 1 and kept[0][1] == 1.0 else WeightedSum(kept)


def fold(node: Node, atom: Callable[[Atom], Tensor], temperature: float) -> Tensor:
    """Evaluate the expression, given its atoms' values as tensors of one shape."""
    if isinstance(node, WeightedSum):
        (first, weight), *others = node.terms
        total = weight * fold(first, atom, temperature)
        for part, share in others:
            total = total + share * fold(part, atom, temperature)
        return total
    if isinstance(node, SoftOr):
        logs = [fold(p, atom, temperature) / temperature + math.log(w) for p, w in node.terms]
        return temperature * torch.logsumexp(torch.stack(logs), 0)
    return atom(node)


def atoms(node: Node) -> Iterator[Atom]:
    """The atoms of the expression, from left to right."""
    if isinstance(node, WeightedSum | SoftOr):
        for part, _ in node.terms:
            yield from atoms(part)
    else:
        yield node


def leaves(node: Node) -> tuple[Leaf, ...]:
    """Every skill in the expression once, from left to right."""
    found: dict[Leaf, None] = {}
    for atom in atoms(node):
        if isinstance(atom, Leaf):
            found[atom] = None
        elif isinstance(atom, Corrected):
            found |= dict.fromkeys(leaves(atom.node))
        else:
            for part in atom.parts:
                found |= dict.fromkeys(leaves(part))
    return tuple(found)


def corrections(node: Node) -> "tuple[Correction, ...]":
    """Every learned correction in the expression."""
    found: list[Correction] = []
    for atom in atoms(node):
        if isinstance(atom, Corrected):
            found += [atom.correction, *corrections(atom.node)]
    return tuple(found)


def is_convex(node: Node) -> bool:
    """Is it a sum with weights >= 0 that sum to 1, so that its Q is never below the optimal one?"""
    if not isinstance(node, WeightedSum):
        return not isinstance(node, SoftOr | Best)
    weights = [weight for _, weight in node.terms]
    plain = all(isinstance(part, Leaf | Corrected) for part, _ in node.terms)
    return plain and min(weights) >= 0.0 and abs(sum(weights) - 1.0) < 1e-6


def mapped(node: Node, change: Callable[[Atom], Node]) -> Node:
    """The same expression with ``change`` applied to every atom."""
    if isinstance(node, WeightedSum | SoftOr):
        terms = tuple((mapped(part, change), weight) for part, weight in node.terms)
        return replace(node, terms=terms)
    return change(node)


def check_bounded(node: Node) -> None:
    """Reject an expression about whose optimality nothing is known.

    Raises:
        IncompatibleSkill: It has a soft-OR of rewards that differ in more than shared goals.
    """
    if isinstance(node, SoftOr) and not node.shared:
        raise IncompatibleSkill(
            f"{name_of(node)}: nothing is known about how far from optimal a soft-OR is if its "
            "rewards differ in more than entering shared goals; if they do not, say so by "
            "any_of(..., shared_goals=True) or --shared-goals"
        )
    if isinstance(node, WeightedSum | SoftOr):
        for part, _ in node.terms:
            check_bounded(part)
    elif isinstance(node, Corrected):
        check_bounded(node.node)


def check_priors(node: Node) -> None:
    """Reject a sum in which the prior of an anchored skill counts negatively.

    Such a skill's Q contains ``alpha log pi_0``, which falls without bound towards the edge of the
    action box. Its negative rises without bound, and a sum with it has no soft value.

    Raises:
        IncompatibleSkill: There is one; priors that are the same network may cancel.
    """
    weights: dict[bytes, float] = {}
    names: dict[bytes, str] = {}

    def count(node: Node, weight: float) -> None:
        if isinstance(node, WeightedSum):
            for part, share in node.terms:
                count(part, weight * share)
        elif isinstance(node, SoftOr):
            for part, _ in node.terms:
                if weight > 0.0:
                    check_priors(part)
                else:
                    count(part, weight)
        elif isinstance(node, Corrected):
            count(node.node, weight)
        elif isinstance(node, Leaf) and node.skill.anchor is not None:
            prior = b"".join(map(np.ndarray.tobytes, node.skill.anchor.arrays().values()))
            weights[prior] = weights.get(prior, 0.0) + weight
            names.setdefault(prior, node.skill.spec.name)

    count(node, 1.0)
    for prior, weight in weights.items():
        if weight < 0.0:
            raise IncompatibleSkill(
                f"the anchored skill '{names[prior]}' cannot be subtracted: its Q includes the "
                "log-density of its prior, whose negative is unbounded. A plain skill can: distil "
                "it first (compose.mean([skill]).distill()), or fine-tune with schedule='paper'"
            )


# Names and texts.


def name_of(node: Node) -> str:
    """The expression as text."""
    if isinstance(node, WeightedSum):
        return _sum_text([(_bracketed(part), weight) for part, weight in node.terms])
    if isinstance(node, SoftOr):
        even = len({weight for _, weight in node.terms}) == 1
        texts = (
            _bracketed(part) if even else f"{weight:.3g} {_bracketed(part)}"
            for part, weight in node.terms
        )
        return " | ".join(texts)
    if isinstance(node, Leaf):
        return node.skill.spec.name
    if isinstance(node, Corrected):
        return f"corrected({name_of(node.node)})"
    return f"best({', '.join(name_of(part) for part in node.parts)})"


def _bracketed(node: Node) -> str:
    text = name_of(node)
    return f"({text})" if isinstance(node, WeightedSum | SoftOr) else text


def reward_text(node: Node, temperature: float) -> str:
    """The reward that it is soft-optimal for, in terms of the parts' rewards ``r[name]``."""
    if isinstance(node, WeightedSum):
        return _sum_text([(_part_reward(p, temperature), w) for p, w in node.terms])
    if isinstance(node, SoftOr):
        inner = " + ".join(
            f"{weight:.3g} exp({_part_reward(part, temperature)} / {temperature:.3g})"
            for part, weight in node.terms
        )
        return f"{temperature:.3g} log({inner})"
    if isinstance(node, Corrected):
        return reward_text(node.node, temperature)
    if isinstance(node, Best):
        return f"{_scale_text(node.reward_scale)}r[{node.env_id}]"
    spec = node.skill.spec
    scale = _scale_text(spec.reward_scale)
    prior = f" + {spec.temperature:.3g} log prior[{spec.name}]" if spec.anchored else ""
    return f"{scale}r[{spec.name}]{prior}"


def _scale_text(scale: float) -> str:
    return "" if scale == 1.0 else f"{scale:.3g} "


def _part_reward(node: Node, temperature: float) -> str:
    text = reward_text(node, temperature)
    return f"({text})" if " " in text else text


def _sum_text(terms: Sequence[tuple[str, float]]) -> str:
    text = ""
    for part, weight in terms:
        sign = " - " if weight < 0 else " + "
        share = "" if abs(weight) == 1.0 else f"{abs(weight):.3g} "
        lead = ("-" if weight < 0 else "") if not text else sign
        text += f"{lead}{share}{part}"
    return text


def reward_of(
    node: Node, rewards: Mapping[str, ArrayLike], temperature: float
) -> NDArray[np.float64]:
    """Its reward, from the parts' rewards by skill name, as their environments pay them.

    Raises:
        KeyError: A part's reward is missing.
        IncompatibleSkill: Two parts have one name, or a part is anchored.
    """
    skills = [leaf.skill.spec for leaf in leaves(node)]
    if len({spec.name for spec in skills}) < len(skills) or any(spec.anchored for spec in skills):
        raise IncompatibleSkill(
            f"the parts {', '.join(repr(spec.name) for spec in skills)} have no reward by name: "
            "two have one name (skill.with_spec(name=...) gives another), or one is anchored and "
            "its reward depends on its prior's density"
        )

    def atom(part: Atom) -> Tensor:
        if isinstance(part, Leaf):
            spec = part.skill.spec
            return spec.reward_scale * torch.as_tensor(np.asarray(rewards[spec.name], float))
        if isinstance(part, Corrected):
            return fold(part.node, atom, temperature)
        return part.reward_scale * torch.as_tensor(np.asarray(rewards[part.env_id], float))

    found: NDArray[np.float64] = fold(node, atom, temperature).numpy()
    return found


def reward_scale(node: Node) -> float | None:
    """The factor on all rewards in it, if they share one and all weights sum to 1; else None."""
    scales = {
        part.reward_scale if isinstance(part, Best) else part.skill.spec.reward_scale
        for part in innermost(node)
    }
    return scales.pop() if len(scales) == 1 and sums_to_one(node) else None


def innermost(node: Node) -> Iterator[Leaf | Best]:
    """Its atoms, with corrected expressions replaced by the atoms inside them."""
    for atom in atoms(node):
        if isinstance(atom, Corrected):
            yield from innermost(atom.node)
        else:
            yield atom


def sums_to_one(node: Node) -> bool:
    """Do the weights of every sum in it sum to 1, so that a reward shared by all is unchanged?"""
    if isinstance(node, Corrected):
        return sums_to_one(node.node)
    if not isinstance(node, WeightedSum | SoftOr):
        return True
    total = sum(weight for _, weight in node.terms)
    return abs(total - 1.0) < 1e-6 and all(sums_to_one(part) for part, _ in node.terms)


def parents(node: Node) -> tuple[str, ...]:
    """Content hashes of all skills in it, as many as a file can hold; see ``Skill.as_parents``."""
    found = dict.fromkeys(h for leaf in leaves(node) for h in leaf.skill.as_parents())
    return tuple(found)[:MAX_PARENTS]


def outline(node: Node) -> dict[str, Any]:
    """The expression as plain data, for records."""
    if isinstance(node, Leaf):
        return {"skill": node.skill.spec.name, "content_hash": node.skill.as_parents()[0]}
    if isinstance(node, Corrected):
        return {"corrected": outline(node.node), "by": node.correction.digest()}
    if isinstance(node, Best):
        return {"best": [outline(part) for part in node.parts], "env_id": node.env_id}
    kind = "sum" if isinstance(node, WeightedSum) else "soft_or"
    return {kind: [[outline(part), weight] for part, weight in node.terms]}


def unordered(about: Any) -> str:
    """An outline as text that does not depend on the order of terms."""
    if isinstance(about, dict):
        return ",".join(f"{json.dumps(name)}:{unordered(about[name])}" for name in sorted(about))
    if isinstance(about, list):
        return f"[{' '.join(sorted(map(unordered, about)))}]"
    return json.dumps(about)
