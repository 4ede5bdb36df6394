"""How skills are composed: means, weighted sums and soft-ORs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from skillbank.compose import expression
from skillbank.compose.composed import Composed
from skillbank.compose.expression import Corrected, Leaf, Node, SoftOr
from skillbank.errors import InvalidArgument, warn
from skillbank.operators import Composable
from skillbank.skill import Skill

# Our tasks whose rewards differ only on entering absorbing goals that all variants share.
SHARED_GOALS = frozenset({"skillbank/PointMassReach-v0"})


class CompositionWarning(UserWarning):
    """A composition outside the conditions under which its guarantee holds."""


def mean(skills: Iterable[Composable], weights: Sequence[float] | None = None) -> Composed:
    """``sum_i w_i Q_i`` with weights >= 0 that sum to 1: good at all of them; ``a & b``.

    Of skills or corrected compositions, it is never below the optimal Q of the reward ``sum_i w_i
    r_i``.

    Args:
        skills: Skills or composed skills.
        weights: Not negative, scaled to sum to 1; None for equal ones.
    """
    return _mean(_nodes(skills), weights)


def add(
    terms: Mapping[Composable, float] | Iterable[tuple[Composable, float]],
) -> Composed:
    """``sum_i w_i Q_i`` with any real weights: ``a - 0.5 * b`` is a but not b.

    Weights that sum to 1 keep the skills' temperature. ``a + b`` is for twice the reward of the
    mean; its policy is that of the mean at half the temperature, so it acts less randomly.

    Raises:
        IncompatibleSkill: They cannot be composed, or an anchored skill is subtracted.
    """
    _check_list(terms)
    pairs = list(terms.items() if isinstance(terms, Mapping) else terms)
    if any(isinstance(pair, Composable) for pair in pairs):
        raise InvalidArgument("a sum needs a weight for each skill, as in add({a: 1, b: -0.5})")
    if not pairs or not all(math.isfinite(weight) for _, weight in pairs):
        raise InvalidArgument(
            f"a sum needs skills with finite weights, got {[w for _, w in pairs]}"
        )
    nodes = _nodes(skill for skill, _ in pairs)
    weights = [float(weight) for _, weight in pairs]
    return Composed(expression.weighted_sum(list(zip(nodes, weights, strict=True))))


def any_of(
    skills: Iterable[Composable],
    weights: Sequence[float] | None = None,
    *,
    shared_goals: bool | None = None,
) -> Composed:
    """``alpha log sum_i w_i exp(Q_i / alpha)``: good at any of them; ``a | b``.

    Of skills or corrected compositions whose rewards differ only on entering absorbing goals that
    the tasks share, this is a lower bound of the optimal Q of the rewards' soft-OR, exact for a
    discount of 1 and deterministic dynamics; the policy is never worse than this Q promises.

    Args:
        skills: Skills or composed skills.
        weights: Positive, scaled to sum to 1; None for equal ones.
        shared_goals: Whether the rewards differ only on entering shared goals. None: looked up for
            skillbank's own tasks; a warning is issued where this is unknown.
    """
    return _any_of(_nodes(skills), weights, shared_goals)


def _mean(nodes: list[Node], weights: Sequence[float] | None) -> Composed:
    share = _shares(weights, len(nodes), least=0.0)
    return Composed(expression.weighted_sum(list(zip(nodes, share, strict=True))))


def _any_of(
    nodes: list[Node], weights: Sequence[float] | None, shared_goals: bool | None
) -> Composed:
    share = _shares(weights, len(nodes), least=math.ulp(0.0))
    node = nodes[0]
    if len(nodes) > 1:
        either = SoftOr(tuple(zip(nodes, share, strict=True)))
        node = replace(either, shared=_goals_are_shared(either, shared_goals))
    composed = Composed(node)
    if isinstance(node, SoftOr) and not node.shared:
        warn(
            f"{composed.spec.name}: a soft-OR is meant for rewards that differ only on entering "
            "absorbing goals shared by all its tasks; any_of(..., shared_goals=True), or "
            "--shared-goals, says that these do, which makes its Q a lower bound of the optimal Q. "
            "Otherwise its policy still prefers what either skill values most at every state, but "
            "no bound holds, and there is neither a certificate nor a correction",
            CompositionWarning,
        )
    return composed


def joined(operator: str, a: Composable, b: Composable) -> Composed:
    """``a & b`` or ``a | b``; a chain of one operator counts each skill once."""
    operands: list[Node] = []
    for one in (a, b):
        if isinstance(one, Composed) and one.joined is not None and one.joined[0] == operator:
            operands.extend(one.joined[1])
        else:
            operands += _nodes([one])
    composed = _mean(operands, None) if operator == "&" else _any_of(operands, None, None)
    composed.joined = operator, tuple(operands)
    return composed


def _nodes(skills: Iterable[Composable]) -> list[Node]:
    """The expressions of the given skills."""
    _check_list(skills)
    if isinstance(skills, Mapping):
        raise InvalidArgument("weights go into weights=[...]; a mapping is for compose.add")
    nodes = [node_of(skill) for skill in skills]
    for skill in (leaf.skill for node in nodes for leaf in expression.leaves(node)):
        if skill.noise_set is not None:
            warn(
                f"'{skill.spec.name}' acts by {skill.spec.noise_set} fixed noises, so its Q is "
                "reliable for few actions and it composes less well. Fine-tune it with "
                "shrink_start=None (--set shrink_start=None) to keep fresh noise",
                CompositionWarning,
            )
    return nodes


def _check_list(skills: object) -> None:
    if isinstance(skills, Composable):
        raise InvalidArgument("the skills go into one list, as in mean([a, b])")


def node_of(skill: Composable) -> Node:
    """The expression of a skill or a composed skill.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(skill, Composed):
        return skill.node
    if isinstance(skill, Skill):
        return Leaf(skill)
    raise TypeError(f"only skills can be composed, got {type(skill).__name__}")


def _shares(weights: Sequence[float] | None, count: int, least: float) -> list[float]:
    """Weights scaled to sum to 1."""
    if count == 0:
        raise InvalidArgument("nothing to compose: name at least one skill")
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    total = sum(given)
    scaled = [weight / total for weight in given] if total > 0.0 else given
    valid = len(given) == count and math.isfinite(total) and total > 0.0
    if not valid or min(*given, *scaled) < least:
        kind = "positive" if least > 0.0 else "not negative"
        raise InvalidArgument(
            f"{count} skills need {count} weights, {kind} and finite; got {given}. "
            "Negative weights are for sums: compose.add, --how sum"
        )
    return scaled


def _goals_are_shared(node: Node, told: bool | None) -> bool:
    if told is not None:
        return told
    skills = [leaf.skill.spec for leaf in expression.leaves(node)]
    envs = {spec.env_id for spec in skills}
    plain = all(isinstance(part, Leaf | Corrected) for part in expression.atoms(node))
    own = not any(spec.anchored or spec.reward for spec in skills)  # the task's reward, as it is
    one = plain and own and expression.reward_scale(node) is not None
    return one and len(envs) == 1 and envs <= SHARED_GOALS
