"""Exact soft Q-iteration on tabular MDPs, the reference solution for learned results.

A table has S states and A actions. Actions may represent cells of a box: each has a log-measure,
so that ``V(s) = alpha log sum_a w_a exp(Q(s, a) / alpha)`` (eq. 5) approximates the integral over
the box scaled to [-1, 1]^d, whose volume is 2^d, and ``pi = exp((Q - V) / alpha)`` is a density:
``sum_a w_a pi(a | s) = 1``. At temperature 0, V is the maximum of Q.

The second half has exact results for compositions of soft-optimal Q-functions with the same
dynamics, discount and temperature. NumPy only; all functions are pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Index = NDArray[np.int64]
MAX_ITERATIONS = 100_000  # of any fixed-point iteration here


@dataclass(frozen=True)
class Table:
    """A Markov decision process with S states, A actions and N possible successors of each pair.

    Attributes:
        reward: r(s, a) [S, A]; its mean if it is random.
        successor: Possible next states [S, A, N].
        probability: Their probabilities [S, A, N], which sum to at most one; the rest is the
            probability that the episode terminates.
        discount: gamma in [0, 1]; at 1, a fixed point exists only if every policy terminates.
        log_measure: Log of the actions' base measure [A] or [S, A]: zero for discrete actions,
            the log of a cell's width for discretised ones, plus ``log pi_0`` for a prior pi_0.
    """

    reward: Float
    successor: Index
    probability: Float
    discount: float
    log_measure: Float

    def __post_init__(self) -> None:
        states, actions = self.reward.shape
        if self.successor.shape != self.probability.shape or self.successor.shape[:2] != (
            states,
            actions,
        ):
            raise ValueError(
                f"reward {self.reward.shape} needs successor and probability [{states}, {actions}, "
                f"N], got {self.successor.shape} and {self.probability.shape}"
            )
        if self.successor.min() < 0 or self.successor.max() >= states:
            raise ValueError(f"successors must be states 0 to {states - 1}")
        if self.probability.min() < 0 or self.probability.sum(-1).max() > 1.0 + 1e-9:
            raise ValueError("probabilities must be at least 0 and sum to at most 1")
        if not 0.0 <= self.discount <= 1.0:
            raise ValueError(f"discount must be in [0, 1], got {self.discount}")
        if self.log_measure.shape not in ((actions,), (states, actions)):
            raise ValueError(
                f"log_measure must be [{actions}] or [{states}, {actions}], "
                f"got {self.log_measure.shape}"
            )

    def expected(self, values: Float) -> Float:
        """E[values(s') | s, a], with value 0 after termination: [S] -> [S, A]."""
        mean: Float = np.einsum("san,san->sa", self.probability, values[self.successor])
        return mean


class Solution(NamedTuple):
    """The soft-optimal Q and V of a table."""

    q: Float  # Q [S, A]
    value: Float  # V [S]


# Making tables.


def stochastic(
    transition: ArrayLike,
    reward: ArrayLike,
    discount: float,
    *,
    terminal: ArrayLike | None = None,
    log_measure: ArrayLike | None = None,
) -> Table:
    """A table from dense transition probabilities.

    Args:
        transition: P(s' | s, a) [S, A, S].
        reward: [S, A].
        discount: gamma.
        terminal: States in which the episode terminates on entry [S] bool; None for none.
        log_measure: As in ``Table``; None for discrete actions.
    """
    probability = np.array(transition, np.float64)
    successor = np.broadcast_to(np.arange(len(probability)), probability.shape)
    return _table(successor, probability, reward, discount, terminal, log_measure)


def deterministic(
    successor: ArrayLike,
    reward: ArrayLike,
    discount: float,
    *,
    terminal: ArrayLike | None = None,
    log_measure: ArrayLike | None = None,
) -> Table:
    """A table with one successor [S, A] per state and action; otherwise as ``stochastic``."""
    following = np.array(successor, np.int64)[:, :, np.newaxis]
    return _table(following, np.ones(following.shape), reward, discount, terminal, log_measure)


def _table(
    successor: Index,
    probability: Float,
    reward: ArrayLike,
    discount: float,
    terminal: ArrayLike | None,
    log_measure: ArrayLike | None,
) -> Table:
    rewards = np.array(reward, np.float64)
    if terminal is not None:
        probability = np.where(np.asarray(terminal, bool)[successor], 0.0, probability)
    measure = np.zeros(rewards.shape[1]) if log_measure is None else np.array(log_measure, float)
    return Table(rewards, successor, probability, discount, measure)


Step = Callable[[Float, Float], tuple[ArrayLike, ArrayLike, ArrayLike]]


def action_cells(dimensions: int, cells: int) -> tuple[Float, Float]:
    """Divide the box [-1, 1]^d into equal cells: midpoints [cells^d, d], log-volumes [cells^d]."""
    middle = (np.arange(cells) + 0.5) * 2.0 / cells - 1.0
    points = np.array(list(product(middle, repeat=dimensions)))
    return points, np.full(len(points), dimensions * np.log(2.0 / cells))


def discretise(
    step: Step,
    axes: Sequence[ArrayLike],
    dimensions: int,
    cells: int,
    discount: float,
) -> tuple[Table, Float, Float]:
    """A table of a continuous deterministic process, with multilinear interpolation on a grid.

    Args:
        step: ``(states [M, D], actions [M, d] in [-1, 1]) -> next_states [M, D], rewards [M],
            terminated [M]``, called once with all pairs.
        axes: D increasing arrays of coordinates; their product is the grid.
        dimensions: d, the dimension of the action.
        cells: Cells per action dimension; values are accurate to second order in their width.
        discount: gamma.

    Returns:
        The table, the grid's states [S, D] (last axis fastest) and the actions [A, d].

    Raises:
        ValueError: A non-terminal successor lies outside the grid.
    """
    lines = [np.asarray(axis, np.float64) for axis in axes]
    states = np.stack([x.ravel() for x in np.meshgrid(*lines, indexing="ij")], 1)
    actions, log_measure = action_cells(dimensions, cells)
    pairs = (len(states), len(actions))
    following, reward, terminated = step(
        np.repeat(states, pairs[1], 0), np.tile(actions, (pairs[0], 1))
    )
    alive = ~np.asarray(terminated, bool)
    index, weight = _interpolation(np.asarray(following, np.float64), lines, alive)
    table = Table(
        np.asarray(reward, np.float64).reshape(pairs),
        index.reshape(*pairs, -1),
        np.where(alive[:, np.newaxis], weight, 0.0).reshape(*pairs, -1),
        discount,
        log_measure,
    )
    return table, states, actions


def interpolate(points: ArrayLike, axes: Sequence[ArrayLike], values: Float) -> Float:
    """Interpolate values [S] or [S, A] of a grid at points [M, D] inside it: [M] or [M, A]."""
    where = np.asarray(points, np.float64)
    lines = [np.asarray(axis, np.float64) for axis in axes]
    index, weight = _interpolation(where, lines, np.ones(len(where), bool))
    found: Float = np.einsum("mn,mn...->m...", weight, values[index])
    return found


def _interpolation(
    points: Float, lines: list[Float], inside: NDArray[np.bool_]
) -> tuple[Index, Float]:
    """Corners of the cell around each point [M, 2^D], and their weights."""
    index, weight = np.zeros((len(points), 1), np.int64), np.ones((len(points), 1))
    for axis, line in enumerate(lines):
        x = points[:, axis]
        slack = 1e-9 * (line[-1] - line[0])
        outside = inside & ~((x >= line[0] - slack) & (x <= line[-1] + slack))
        if outside.any():
            raise ValueError(
                f"coordinate {axis} leaves the grid: {x[outside][0]:g} is not in "
                f"[{line[0]:g}, {line[-1]:g}]; widen the grid, or clip in the step"
            )
        left = np.clip(np.searchsorted(line, x, "right") - 1, 0, len(line) - 2)
        share = np.clip((x - line[left]) / (line[left + 1] - line[left]), 0.0, 1.0)
        corner = np.stack([left, left + 1], 1)  # [M, 2]
        portion = np.stack([1.0 - share, share], 1)
        index = (index[:, :, np.newaxis] * len(line) + corner[:, np.newaxis]).reshape(len(x), -1)
        weight = (weight[:, :, np.newaxis] * portion[:, np.newaxis]).reshape(len(x), -1)
    return index, weight


# Solving them.


def soft_value(q: Float, log_measure: Float, temperature: float) -> Float:
    """``V = alpha log sum_a w_a exp(Q / alpha)`` [S, A] -> [S]; the maximum at temperature 0."""
    if temperature == 0.0:
        best: Float = np.where(np.isneginf(log_measure), -np.inf, q).max(1)
        return best
    return temperature * _log_sum(q / temperature + log_measure)


def log_policy(q: Float, log_measure: Float, temperature: float) -> Float:
    """``log pi = (Q - V) / alpha`` [S, A] (eq. 6), a density over the base measure."""
    value = soft_value(q, log_measure, temperature)
    return (q - value[:, np.newaxis]) / temperature


def soft_backup(table: Table, value: Float) -> Float:
    """``Q(s, a) = r + gamma E V(s')`` (eq. 7): [S] -> [S, A]."""
    return table.reward + table.discount * table.expected(value)


def soft_q_iteration(table: Table, temperature: float, tolerance: float = 1e-10) -> Solution:
    """Soft Q-iteration (theorem 3; eq. 8, 9) until Q is within ``tolerance`` of its fixed point.

    Raises:
        ArithmeticError: It did not converge, which can only happen with a discount of 1.
    """

    def backup(q: Float) -> Float:
        return soft_backup(table, soft_value(q, table.log_measure, temperature))

    q = _fixed_point(backup, table, tolerance)
    return Solution(q, soft_value(q, table.log_measure, temperature))


def soft_evaluation(table: Table, log_pi: Float, temperature: float) -> Float:
    """Soft Q-function of a fixed policy (eq. 15), from one linear system.

    Args:
        table: The process.
        log_pi: Log-density over the base measure [S, A]; -inf for actions that are never taken.
        temperature: alpha, 0 or more.

    Returns:
        Q of the policy [S, A].
    """
    states = len(table.reward)
    mass = np.exp(log_pi + table.log_measure)  # probability of each action [S, A]
    entropy = -temperature * np.where(mass > 0.0, log_pi, 0.0)
    move = np.zeros((states, states))
    origin = np.broadcast_to(np.arange(states)[:, np.newaxis, np.newaxis], table.successor.shape)
    np.add.at(move, (origin, table.successor), mass[:, :, np.newaxis] * table.probability)
    earned = (mass * (table.reward + entropy)).sum(1)
    value = np.linalg.solve(np.eye(states) - table.discount * move, earned)
    return soft_backup(table, value)


def soft_policy_iteration(table: Table, temperature: float, tolerance: float = 1e-10) -> Solution:
    """Soft policy iteration (theorem 4) until Q converges.

    This is Newton's method on the equation that soft Q-iteration solves. It needs a handful of
    S x S linear systems, which is faster if gamma is near 1 and S is below a few thousand. The
    temperature must be positive.

    Raises:
        ValueError: The temperature is not positive.
        ArithmeticError: It did not converge.
    """
    if temperature <= 0.0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    measure = table.log_measure
    q = table.reward
    for _ in range(1000):
        better = soft_evaluation(table, log_policy(q, measure, temperature), temperature)
        change = float(np.abs(better - q).max())
        q = better
        if change <= tolerance * max(1.0, float(np.abs(q).max())):
            return Solution(q, soft_value(q, measure, temperature))
    raise ArithmeticError(f"policy iteration did not converge: Q still changes by {change:g}")


def _fixed_point(operator: Callable[[Float], Float], table: Table, tolerance: float) -> Float:
    """Iterate a gamma-contraction on [S, A] until within ``tolerance`` of its fixed point."""
    gamma = table.discount
    # |x_k - x*| <= gamma / (1 - gamma) |x_k - x_{k-1}|; at gamma = 1, bound the last change.
    stop = tolerance * min(1.0, (1.0 - gamma) / gamma) if 0.0 < gamma < 1.0 else tolerance
    x = np.zeros_like(table.reward)
    for _ in range(MAX_ITERATIONS):
        following = operator(x)
        change = float(np.abs(following - x).max())
        x = following
        # rounding errors keep the change above a few units in the last place
        if change <= max(stop, 4.0 * np.finfo(float).eps * float(np.abs(x).max())):
            return x
    raise ArithmeticError(
        f"no fixed point after {MAX_ITERATIONS} iterations (last change {change:g}); with a "
        "discount of 1 every policy must terminate"
    )


# Composition of Q-functions that are soft-optimal for rewards r_i on the same table, at the same
# temperature > 0.


def weighted_sum(arrays: Sequence[Float], weights: Sequence[float]) -> Float:
    """``sum_i w_i x_i``, of rewards or Q-functions [S, A] each."""
    assert len(arrays) == len(weights), (len(arrays), len(weights))
    total: Float = np.tensordot(np.asarray(weights, float), np.stack(arrays), 1)
    return total


def soft_or(qs: Sequence[Float], weights: Sequence[float], temperature: float) -> Float:
    """``alpha log sum_i w_i exp(Q_i / alpha)``, weights > 0 that sum to 1; the maximum at 0.

    If the rewards differ only on entering shared absorbing states, this is exactly the optimal Q
    for the soft-OR of the rewards when the dynamics are deterministic and gamma is 1, and a lower
    bound otherwise. (The operation is convex, commutes with adding a constant and maps zeros to
    zero, so moving it inside an expectation or a discount cannot decrease it.) At temperature 0 it
    is exact for deterministic dynamics at any gamma.
    """
    share = np.asarray(weights, float)
    if (share <= 0.0).any() or abs(share.sum() - 1.0) > 1e-9:
        raise ValueError(f"weights of a soft-OR must be positive and sum to 1, got {weights}")
    stacked = np.stack(qs, -1)  # [S, A, skills]
    if temperature == 0.0:
        best: Float = stacked.max(-1)
        return best
    return temperature * _log_sum(stacked / temperature + np.log(share))


def policy_divergence(
    log_policies: Sequence[Float], weights: Sequence[float], log_measure: Float
) -> Float:
    """``-log INT prod_i pi_i^{w_i} da`` [S].

    For weights of 1/2 each this is half of Rényi's divergence ``D_1/2 = -2 log INT sqrt(pi_1
    pi_2)``; for convex weights it is never negative. ``alpha`` times it is ``sum_i w_i V_i`` minus
    the soft value of ``sum_i w_i Q_i``.
    """
    return -_log_sum(weighted_sum(log_policies, weights) + log_measure)


def divergence_correction(
    table: Table,
    log_policies: Sequence[Float],
    weights: Sequence[float],
    temperature: float,
    tolerance: float = 1e-10,
) -> Float:
    """The C [S, A] for which ``sum_i w_i Q_i - C`` is exactly optimal for ``sum_i w_i r_i``.

    ``C(s, a) = -alpha gamma E log INT prod_i pi_i(a' | s')^{w_i} exp(-C(s', a') / alpha) da'``,
    and 0 after termination. This holds for any real weights, any number of skills and any
    dynamics; the rewards are not needed. The policies must be densities over the table's measure.
    """
    joint = weighted_sum(log_policies, weights) + table.log_measure  # [S, A]

    def operator(c: Float) -> Float:
        lacking = -temperature * _log_sum(joint - c / temperature)
        return table.discount * table.expected(lacking)

    return _fixed_point(operator, table, tolerance)


def correction_bounds(
    table: Table,
    log_policies: Sequence[Float],
    weights: Sequence[float],
    temperature: float,
    tolerance: float = 1e-10,
) -> tuple[Float, Float]:
    """Lower and upper bounds of the correction: ``least <= C <= most``, [S, A] each.

    ``most(s, a) = gamma E [ alpha D(s') + max_a' most(s', a') ]`` with D the policies'
    divergence; ``least`` takes the minimum instead. With two weights of 1/2, ``alpha D`` is
    ``(alpha / 2) D_1/2`` and ``most`` is the C of the paper's bound ``Q_0 >= Q* >= Q_0 - C``. Its
    lower side holds for any real weights, the upper side (``least >= 0``) for convex weights.
    """
    lacking = temperature * policy_divergence(log_policies, weights, table.log_measure)

    def most(c: Float) -> Float:
        return table.discount * table.expected(lacking + c.max(1))

    def least(c: Float) -> Float:
        return table.discount * table.expected(lacking + c.min(1))

    return _fixed_point(least, table, tolerance), _fixed_point(most, table, tolerance)


def composition_gap(
    table: Table, log_policies: Sequence[Float], weights: Sequence[float], temperature: float
) -> Float:
    """Upper bound of the soft Q that the composed policy loses to the optimal one [S, A].

    ``sum_i w_i Q_i`` exceeds the soft Q of the policy ``pi`` proportional to ``prod_i pi_i^{w_i}``
    by the expected discounted divergences under that policy, and exceeds the optimal Q by at least
    the smallest such sum over all policies (``least``). This returns the difference, which a
    certificate estimates. It holds for any real weights.
    """
    lacking = temperature * policy_divergence(log_policies, weights, table.log_measure)
    unkept = replace(table, reward=table.discount * table.expected(lacking))
    joint = weighted_sum(log_policies, weights)
    composed = joint + (lacking / temperature)[:, np.newaxis]  # normalised
    least, _ = correction_bounds(table, log_policies, weights, temperature)
    return soft_evaluation(unkept, composed, 0.0) - least


def _log_sum(x: Float) -> Float:
    """Stable log-sum-exp over the last axis."""
    top = x.max(-1, keepdims=True)
    total: Float = np.log(np.exp(x - top).sum(-1)) + top[..., 0]
    return total
