"""What a composed skill is: an expression over skills, and the algebra that gives it numbers.

The algebra is the same whatever is folded: Q-functions, soft values, backups. A skill's Q is
soft-optimal for its reward, ``Q_i = r_i + gamma E V_i(s')``; with that

- a weighted sum has ``Q = sum_i w_i Q_i``, whose policy is proportional to
  ``prod_i pi_i^{w_i}`` where all have one temperature;
- a soft-OR has ``Q = alpha log sum_i w_i exp(Q_i / alpha)``, whose policy is a mixture of theirs;
- either minus a learned correction is soft-optimal itself (see ``correction``).
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
    """``sum_i w_i Q_i``, any real weights."""

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
    env_id: str  # whose reward it is
    reward_scale: float = 1.0  # that it was multiplied by


Node = Leaf | WeightedSum | SoftOr | Corrected | Best
Atom = Leaf | Corrected | Best  # what is not an operation on others


def weighted_sum(terms: Sequence[tuple[Node, float]]) -> Node:
    """A sum in its simplest form: sums inside it are expanded, and each term is there once.

    Nothing is lost by that, for sums are linear in everything: Q, reward and correction.
    """
    weights: dict[Node, float] = {}
    for node, weight in terms:
        inner = node.terms if isinstance(node, WeightedSum) else ((node, 1.0),)
        for part, share in inner:
            weights[part] = weights.get(part, 0.0) + weight * share
    kept = tuple((part, weight) for part, weight in weights.items() if weight)
    kept = kept or tuple(weights.items())[:1]  # nothing is left of a - a but the uniform policy
    return kept[0][0] if len(kept) == 1 and kept[0][1] == 1.0 else WeightedSum(kept)


def fold(node: Node, atom: Callable[[Atom], Tensor], temperature: float) -> Tensor:
    """The expression's number from its atoms' numbers, which are tensors of one shape."""
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
    """What the expression is made of, from left to right."""
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
    """The same expression of changed atoms."""
    if isinstance(node, WeightedSum | SoftOr):
        terms = tuple((mapped(part, change), weight) for part, weight in node.terms)
        return replace(node, terms=terms)
    return change(node)


def check_bounded(node: Node) -> None:
    """Refuse an expression about whose optimality nothing is known.

    Raises:
        IncompatibleSkill: It has a soft-OR of rewards that differ in more than shared goals.
    """
    if isinstance(node, SoftOr) and not node.shared:
        raise IncompatibleSkill(
            f"{name_of(node)}: nothing is known about how far from optimal a soft-OR is whose "
            "rewards differ in more than entering shared goals; any_of(..., shared_goals=True), or "
            "--shared-goals, says that they do not"
        )
    if isinstance(node, WeightedSum | SoftOr):
        for part, _ in node.terms:
            check_bounded(part)
    elif isinstance(node, Corrected):
        check_bounded(node.node)


# In words.


def name_of(node: Node) -> str:
    """How a reader would write it."""
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
    """The reward that it is soft-optimal for, in the parts' rewards ``r[name]``."""
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
    """Its reward from the parts' own, by skill name, in the units of their environments.

    Raises:
        KeyError: A part's reward is missing.
        IncompatibleSkill: Two parts have one name, or a part is anchored.
    """
    skills = [leaf.skill.spec for leaf in leaves(node)]
    if len({spec.name for spec in skills}) < len(skills) or any(spec.anchored for spec in skills):
        raise IncompatibleSkill(
            f"the parts {', '.join(repr(spec.name) for spec in skills)} have no reward by name: "
            "two have one name, or one is anchored and its reward depends on its prior's density"
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
    """What all rewards in it are multiplied by, where it is one number and weights sum to 1."""
    scales = {
        part.reward_scale if isinstance(part, Best) else part.skill.spec.reward_scale
        for part in innermost(node)
    }
    return scales.pop() if len(scales) == 1 and sums_to_one(node) else None


def innermost(node: Node) -> Iterator[Leaf | Best]:
    """Its atoms, and those of what is corrected in it."""
    for atom in atoms(node):
        if isinstance(atom, Corrected):
            yield from innermost(atom.node)
        else:
            yield atom


def sums_to_one(node: Node) -> bool:
    """Do the weights of every sum in it, so that a reward which all share stays as it is?"""
    if isinstance(node, Corrected):
        return sums_to_one(node.node)
    if not isinstance(node, WeightedSum | SoftOr):
        return True
    total = sum(weight for _, weight in node.terms)
    return abs(total - 1.0) < 1e-6 and all(sums_to_one(part) for part, _ in node.terms)


def parents(node: Node) -> tuple[str, ...]:
    """Content hashes of all skills in it, as many as a file has; see ``Skill.as_parents``."""
    found = dict.fromkeys(h for leaf in leaves(node) for h in leaf.skill.as_parents())
    return tuple(found)[:MAX_PARENTS]


def outline(node: Node) -> dict[str, Any]:
    """The expression as plain data, for whoever keeps a record of it."""
    if isinstance(node, Leaf):
        return {"skill": node.skill.spec.name, "content_hash": node.skill.as_parents()[0]}
    if isinstance(node, Corrected):
        return {"corrected": outline(node.node), "by": node.correction.digest()}
    if isinstance(node, Best):
        return {"best": [outline(part) for part in node.parts], "env_id": node.env_id}
    kind = "sum" if isinstance(node, WeightedSum) else "soft_or"
    return {kind: [[outline(part), weight] for part, weight in node.terms]}


def unordered(about: Any) -> str:
    """A text of an outline that is the same whichever order its terms are in."""
    if isinstance(about, dict):
        return ",".join(f"{json.dumps(name)}:{unordered(about[name])}" for name in sorted(about))
    if isinstance(about, list):
        return f"[{' '.join(sorted(map(unordered, about)))}]"
    return json.dumps(about)
