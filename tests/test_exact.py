"""The oracle itself, held to closed forms, and the laws of composition on random tables."""

import numpy as np
import pytest
from scipy.special import erf
from tables import random_table, with_reward

from skillbank import exact

SEEDS = range(5)


def solved(table, rewards, alpha):
    qs = [exact.soft_q_iteration(with_reward(table, r), alpha, 1e-12).q for r in rewards]
    return qs, [exact.log_policy(q, table.log_measure, alpha) for q in qs]


# Soft Q-iteration.


@pytest.mark.parametrize("kind", ["deterministic", "stochastic"])
@pytest.mark.parametrize("seed", SEEDS)
def test_solution_satisfies_the_soft_bellman_equation_written_out(seed, kind):
    table, _ = random_table(seed, kind=kind)
    alpha = 0.3
    q, value = exact.soft_q_iteration(table, alpha, 1e-12)
    for s, a in np.ndindex(q.shape):
        expected = 0.0
        for following, p in zip(table.successor[s, a], table.probability[s, a], strict=True):
            weights = np.exp(table.log_measure + q[following] / alpha)
            expected += p * alpha * np.log(weights.sum())
        assert q[s, a] == pytest.approx(table.reward[s, a] + 0.9 * expected, abs=1e-10)
        assert value[s] == pytest.approx(
            alpha * np.log(np.exp(table.log_measure + q[s] / alpha).sum()), abs=1e-10
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_policy_iteration_by_linear_systems_finds_the_same(seed):
    table, _ = random_table(seed, discount=0.97)
    by_backups = exact.soft_q_iteration(table, 0.2, 1e-12)
    by_policies = exact.soft_policy_iteration(table, 0.2, 1e-12)
    np.testing.assert_allclose(by_policies.q, by_backups.q, atol=1e-9)


def test_one_state_bandit_in_closed_form():
    # V = alpha log sum exp(r / alpha) / (1 - gamma) for one state that repeats
    reward = np.array([[0.3, -0.2, 1.0]])
    table = exact.deterministic([[0, 0, 0]], reward, 0.8)
    alpha = 0.5
    value = alpha * np.log(np.exp(reward / alpha).sum()) / (1 - 0.8)
    solution = exact.soft_q_iteration(table, alpha)
    assert solution.value[0] == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(solution.q, reward + 0.8 * value, atol=1e-9)


def test_zero_temperature_is_the_hard_maximum_and_the_limit():
    table, _ = random_table(1)
    hard = exact.soft_q_iteration(table, 0.0, 1e-12)
    q = np.zeros_like(table.reward)
    for _ in range(500):
        q = table.reward + 0.9 * table.expected(q.max(1))
    np.testing.assert_allclose(hard.q, q, atol=1e-10)
    soft = exact.soft_q_iteration(table, 1e-4, 1e-12)
    np.testing.assert_allclose(soft.q, hard.q, atol=0.02)


def test_value_is_return_plus_entropy_of_simulated_episodes():
    # eq. 2: an independent check of what is maximised, by simulation with the solved policy
    table, _ = random_table(3)
    alpha, gamma, copies = 0.4, 0.9, 20_000
    q, value = exact.soft_q_iteration(table, alpha)
    log_pi = exact.log_policy(q, table.log_measure, alpha)
    mass = np.exp(log_pi + table.log_measure)
    np.testing.assert_allclose(mass.sum(1), 1.0, atol=1e-12)
    rng = np.random.default_rng(0)
    state, alive = np.zeros(copies, int), np.ones(copies, bool)
    total = np.zeros(copies)
    for t in range(100):
        action = (rng.random(copies)[:, None] > mass[state].cumsum(1)).sum(1).clip(max=4)
        gain = table.reward[state, action] - alpha * log_pi[state, action]
        total += alive * gamma**t * gain
        row = table.probability[state, action].cumsum(1)
        pick = (rng.random(copies)[:, None] > row).sum(1)
        alive &= pick < row.shape[1]  # beyond the last: the missing mass, an end
        state = table.successor[state, action, pick.clip(max=row.shape[1] - 1)]
    error = total.std() / np.sqrt(copies)
    assert abs(total.mean() - value[0]) < 4 * error + 0.001


def test_an_ended_episode_earns_nothing_and_survival_pays_the_volume():
    # with reward 0 in d dimensions each step survived earns alpha d log 2
    points, log_width = exact.action_cells(3, 4)
    assert points.shape == (64, 3)
    assert np.exp(log_width).sum() == pytest.approx(8.0)
    one = np.zeros((1, 64), int)
    alive = exact.deterministic(one, np.zeros((1, 64)), 0.9, log_measure=log_width)
    ended = exact.deterministic(one, np.zeros((1, 64)), 0.9, terminal=[True], log_measure=log_width)
    per_step = 0.2 * 3 * np.log(2.0)
    assert exact.soft_q_iteration(alive, 0.2).value[0] == pytest.approx(per_step / 0.1)
    assert exact.soft_q_iteration(ended, 0.2).value[0] == pytest.approx(per_step)


def test_an_undiscounted_table_without_an_end_is_refused():
    table = exact.deterministic([[0]], [[1.0]], 1.0)
    with pytest.raises(ArithmeticError, match="every policy must terminate"):
        exact.soft_q_iteration(table, 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"successor": np.array([[[2]], [[0]]])}, "states 0 to 1"),
        ({"probability": np.array([[[1.1]], [[1.0]]])}, "sum to at most 1"),
        ({"discount": 1.2}, "discount must be in"),
        ({"log_measure": np.zeros(3)}, r"log_measure must be \[1\] or \[2, 1\]"),
        ({"successor": np.zeros((2, 2, 1), int)}, "needs successor and probability"),
    ],
)
def test_bad_tables_are_refused(change, message):
    good = {
        "reward": np.zeros((2, 1)),
        "successor": np.zeros((2, 1, 1), int),
        "probability": np.ones((2, 1, 1)),
        "discount": 0.9,
        "log_measure": np.zeros(1),
    }
    exact.Table(**good)
    with pytest.raises(ValueError, match=message):
        exact.Table(**(good | change))


# Discretised continuous processes.


def test_soft_value_of_a_quadratic_over_the_box_in_closed_form():
    # INT_{-1}^{1} exp(-b a^2 / alpha) da = sqrt(pi alpha / b) erf(sqrt(b / alpha)), per dimension
    b, alpha = 2.0, 0.5
    per_dimension = np.sqrt(np.pi * alpha / b) * erf(np.sqrt(b / alpha))
    for dimensions in (1, 2):
        points, log_width = exact.action_cells(dimensions, 100)
        q = -b * np.square(points).sum(1)[np.newaxis]
        value = exact.soft_value(q, log_width, alpha)[0]
        assert value == pytest.approx(alpha * dimensions * np.log(per_dimension), abs=1e-4)


def test_what_a_prior_forbids_is_not_chosen_at_any_temperature():
    q, log_prior = np.array([[0.0, 1.0]]), np.array([0.0, -np.inf])
    for alpha in (1.0, 0.01, 0.0):
        assert exact.soft_value(q, log_prior, alpha) == pytest.approx([0.0])


def test_where_an_episode_ends_does_not_matter():
    def step(state, action):
        ends = state[:, 0] > 0.5
        following = np.where(ends[:, None], np.nan, state)  # some simulators leave nothing there
        return following, np.ones(len(state)), ends

    table, _, _ = exact.discretise(step, [np.array([0.0, 1.0])], 1, 4, 0.9)
    value = exact.soft_q_iteration(table, 0.0).value
    np.testing.assert_allclose(value, [10.0, 1.0])


def test_linear_quadratic_process_in_closed_form():
    # s' = s + a on the line, r = -s^2 - a^2 with actions far inside the box: V = c - p s^2 where
    # p solves p = 1 + gamma p / (1 + gamma p), and the noise of the policy only moves c.
    gamma, alpha = 0.9, 0.01

    def step(state, action):
        return (state + action).clip(-2, 2), -(state**2 + action**2)[:, 0], np.zeros(len(state))

    axis = np.linspace(-2, 2, 161)
    table, states, _ = exact.discretise(step, [axis], 1, 160, gamma)
    value = exact.soft_policy_iteration(table, alpha).value
    p = 1.0
    for _ in range(200):
        p = 1.0 + gamma * p / (1.0 + gamma * p)
    curvature = 1.0 + gamma * p  # Q = ... - (1 + gamma p)(a - a*)^2
    c = alpha * 0.5 * np.log(np.pi * alpha / curvature) / (1 - gamma)
    middle = np.abs(states[:, 0]) < 0.8
    expected = c - p * states[middle, 0] ** 2
    spread = np.ptp(expected)
    assert np.abs(value[middle] - expected).max() < 0.01 * spread


def test_interpolation_is_exact_for_multilinear_functions():
    axes = [np.array([-1.0, 0.0, 2.0]), np.linspace(0, 1, 4), np.array([0.0, 5.0])]
    grid = np.stack([x.ravel() for x in np.meshgrid(*axes, indexing="ij")], 1)

    def f(x):
        return 1.0 + x[:, 0] * x[:, 1] - 2.0 * x[:, 2] + x[:, 0] * x[:, 1] * x[:, 2]

    points = np.random.default_rng(0).uniform([-1, 0, 0], [2, 1, 5], (200, 3))
    # f is linear in each coordinate separately, so each cell's interpolant is f itself
    np.testing.assert_allclose(exact.interpolate(points, axes, f(grid)), f(points), atol=1e-12)
    np.testing.assert_allclose(exact.interpolate(grid, axes, f(grid)), f(grid), atol=1e-12)


def test_a_successor_outside_the_grid_is_refused_unless_the_episode_ended():
    def step(state, action):
        following = state + 0.5 * action
        return following, np.zeros(len(state)), ended * (np.abs(following[:, 0]) > 1)

    ended = 1
    exact.discretise(step, [np.linspace(-1, 1, 5)], 1, 4, 0.9)
    ended = 0
    with pytest.raises(ValueError, match="coordinate 0 leaves the grid"):
        exact.discretise(step, [np.linspace(-1, 1, 5)], 1, 4, 0.9)


# A prior.


@pytest.mark.parametrize("seed", SEEDS)
def test_a_prior_is_the_reward_of_its_log_density(seed):
    """Anchored: V = alpha log E_{pi_0} exp(Q / alpha) is soft Q-learning on r + alpha log pi_0."""
    table, _ = random_table(seed)
    alpha = 0.3
    log_prior = np.random.default_rng(seed).normal(size=table.reward.shape)
    log_prior -= np.log(np.exp(log_prior + table.log_measure).sum(1, keepdims=True))
    anchored = exact.Table(
        table.reward, table.successor, table.probability, 0.9, table.log_measure + log_prior
    )
    prior = exact.soft_q_iteration(anchored, alpha, 1e-12)
    plain = exact.soft_q_iteration(with_reward(table, table.reward + alpha * log_prior), alpha)
    np.testing.assert_allclose(plain.q, prior.q + alpha * log_prior, atol=1e-9)
    np.testing.assert_allclose(plain.value, prior.value, atol=1e-9)
    by_policies = exact.soft_policy_iteration(anchored, alpha)
    np.testing.assert_allclose(by_policies.q, prior.q, atol=1e-9)


# Composition.

WEIGHTS = [(1.0, 1.0), (0.3, 0.7), (0.2, 0.2), (1.0, -0.5), (0.2, 0.5, 0.3), (1.0, 1.0, -1.0)]


@pytest.mark.parametrize("kind", ["deterministic", "stochastic"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_divergence_correction_equals_the_directly_solved_q(weights, kind):
    for seed in SEEDS:
        table, rewards = random_table(seed, kind=kind)
        rewards = rewards[: len(weights)]
        alpha = 0.4
        qs, log_pis = solved(table, rewards, alpha)
        total = exact.weighted_sum(rewards, weights)
        target = exact.soft_q_iteration(with_reward(table, total), alpha, 1e-12).q
        correction = exact.divergence_correction(table, log_pis, weights, alpha, 1e-12)
        found = exact.weighted_sum(qs, weights) - correction
        np.testing.assert_allclose(found, target, atol=1e-9)
        assert np.abs(correction).max() > 0.01  # there was something to correct


@pytest.mark.parametrize("weights", WEIGHTS)
def test_bounds_hold_on_both_sides(weights):
    convex = min(weights) >= 0 and sum(weights) == pytest.approx(1.0)
    for seed in SEEDS:
        table, rewards = random_table(seed)
        alpha = 0.4
        _, log_pis = solved(table, rewards[: len(weights)], alpha)
        correction = exact.divergence_correction(table, log_pis, weights, alpha, 1e-12)
        least, most = exact.correction_bounds(table, log_pis, weights, alpha, 1e-12)
        assert (least <= correction + 1e-9).all()
        assert (correction <= most + 1e-9).all()
        assert not convex or least.min() >= 0.0


@pytest.mark.parametrize("alpha", [0.4, 10.0])
def test_the_averaging_theorem_needs_a_factor_of_half_the_temperature(alpha):
    """Q_0 >= Q* >= Q_0 - C with C = gamma E[(alpha / 2) D_1/2 + max C], written out here.

    Without the factor, as in print, C is too small at a temperature above 2.
    """
    table, rewards = random_table(2, terminal=False)
    qs, (first, second) = solved(table, rewards[:2], alpha)
    measure = np.exp(table.log_measure)
    renyi = -2.0 * np.log((measure * np.sqrt(np.exp(first + second))).sum(1))
    mean_reward = 0.5 * (rewards[0] + rewards[1])
    best = exact.soft_q_iteration(with_reward(table, mean_reward), alpha, 1e-12).q
    naive = 0.5 * (qs[0] + qs[1])
    assert (naive >= best - 1e-9).all()

    def bound(factor):
        c = np.zeros_like(naive)
        for _ in range(1000):
            c = 0.9 * table.expected(factor * renyi + c.max(1))
        return c

    _, most = exact.correction_bounds(table, [first, second], (0.5, 0.5), alpha, 1e-12)
    np.testing.assert_allclose(most, bound(0.5 * alpha), atol=1e-9)
    assert (best >= naive - most - 1e-9).all()
    assert (best >= naive - bound(1.0)).all() == (alpha <= 2.0)


def test_equal_policies_need_no_correction_and_one_skill_is_itself():
    table, rewards = random_table(0)
    _, (log_pi, _) = solved(table, rewards[:2], 0.3)
    same = exact.divergence_correction(table, [log_pi, log_pi], (0.4, 0.6), 0.3)
    np.testing.assert_allclose(same, 0.0, atol=1e-9)
    alone = exact.divergence_correction(table, [log_pi, -log_pi], (1.0, 0.0), 0.3)
    np.testing.assert_allclose(alone, 0.0, atol=1e-9)


def goals(kind, seed, discount):
    """A layered world with two absorbing ends; two rewards that differ only on entering them."""
    rng = np.random.default_rng(seed)
    layers, width, actions = 3, 3, 4
    states = layers * width + 2
    chances = np.zeros((states, actions, states))
    for s, a in np.ndindex(layers * width, actions):
        layer = s // width
        ahead = (layer + 1) * width + np.arange(width if layer + 1 < layers else 2)
        if kind == "deterministic":
            chances[s, a, rng.choice(ahead)] = 1.0
        else:
            chances[s, a, ahead] = rng.dirichlet(np.full(len(ahead), 0.5))
    ends = states - 2 + np.arange(2)
    chances[ends] = 0.0
    common = rng.normal(size=(states, actions))
    common[ends] = 0.0
    prizes = rng.normal(size=(2, 2))  # of each task for each end
    # An action in an absorbing state is the end itself: it pays the prize, whatever it is.
    rewards = []
    for prize in prizes:
        reward = common.copy()
        reward[ends] = prize[:, None]
        rewards.append(reward)
    return exact.stochastic(chances, common, discount), rewards


def soft_or_gap(kind, seed, discount, alpha):
    table, rewards = goals(kind, seed, discount)
    weights = (0.3, 0.7)
    qs = [exact.soft_q_iteration(with_reward(table, r), alpha, 1e-12).q for r in rewards]
    either = exact.soft_or(rewards, weights, alpha)
    best = exact.soft_q_iteration(with_reward(table, either), alpha, 1e-12).q
    return best - exact.soft_or(qs, weights, alpha)


@pytest.mark.parametrize("seed", SEEDS)
def test_soft_or_is_exact_where_its_conditions_hold_and_a_lower_bound_elsewhere(seed):
    np.testing.assert_allclose(soft_or_gap("deterministic", seed, 1.0, 0.5), 0.0, atol=1e-10)
    np.testing.assert_allclose(soft_or_gap("deterministic", seed, 0.8, 0.0), 0.0, atol=1e-10)
    for kind, discount in (("stochastic", 1.0), ("deterministic", 0.8), ("stochastic", 0.8)):
        gap = soft_or_gap(kind, seed, discount, 0.5)
        assert gap.min() > -1e-10, (kind, discount)
        assert gap.max() > 1e-4, (kind, discount)  # and not exact


def test_soft_or_of_a_gamble():
    """One action, left with 0.9 and right with 0.1: either prize is worth 1, the OR says 0.9."""
    chances = np.zeros((3, 1, 3))
    chances[0, 0] = [0.0, 0.9, 0.1]
    table = exact.stochastic(chances, np.zeros((3, 1)), 1.0)
    left, right = np.array([[0.0], [1.0], [0.0]]), np.array([[0.0], [0.0], [1.0]])
    qs = [exact.soft_q_iteration(with_reward(table, r), 0.0).q for r in (left, right)]
    either = exact.soft_or([left, right], (0.5, 0.5), 0.0)
    assert exact.soft_q_iteration(with_reward(table, either), 0.0).q[0, 0] == pytest.approx(1.0)
    assert exact.soft_or(qs, (0.5, 0.5), 0.0)[0, 0] == pytest.approx(0.9)


@pytest.mark.parametrize("weights", [(0.5, 0.6), (1.5, -0.5), (1.0, 0.0)])
def test_soft_or_refuses_weights_that_are_not_shares(weights):
    with pytest.raises(ValueError, match="positive and sum to 1"):
        exact.soft_or([np.zeros((1, 1))] * 2, weights, 0.1)


# The grid tasks of the literature: where averaging fails, where the best of the parts fails, and
# that the correction solves all of them.

SIDE, MIDDLE = 11, 60  # cells along each side of the grid; its middle, where an episode starts
GOALS = {"left": (0, 5), "right": (10, 5), "up": (5, 10), "down": (5, 0)}
MOVES = ((-1, 0), (1, 0), (0, 1), (0, -1))
TIME_COST, COLD, PATIENT = 0.02, 0.02, 0.99  # per step; temperature; discount


def goal_task(**amounts):
    """Walk over the grid; every goal ends the episode and pays its amount."""
    x, y = np.divmod(np.arange(SIDE * SIDE), SIDE)
    last = SIDE - 1
    moved = [(np.clip(x + dx, 0, last), np.clip(y + dy, 0, last)) for dx, dy in MOVES]
    successor = np.stack([across * SIDE + along for across, along in moved], 1)
    pay, terminal = np.zeros(SIDE * SIDE), np.zeros(SIDE * SIDE, bool)
    for name, (across, along) in GOALS.items():
        terminal[across * SIDE + along] = True
        pay[across * SIDE + along] = amounts.get(name, 0.0)
    uniform = np.full(len(MOVES), -np.log(len(MOVES)))  # so that wandering pays nothing
    reward = pay[successor] - TIME_COST
    return exact.deterministic(successor, reward, PATIENT, terminal=terminal, log_measure=uniform)


@pytest.mark.parametrize(
    ("amounts", "averaging_solves", "best_of_parts_solves"),
    [
        (({"left": 1.0}, {"right": 1.0}), False, True),
        (({"left": 1.0, "up": 1.0}, {"right": 1.0, "up": 1.0}), True, True),
        (({"left": 1.0, "up": 0.7}, {"right": 1.0, "up": 0.7}), False, False),
    ],
    ids=["left-right", "left-and-up", "tricky"],
)
def test_the_grid_tasks_of_the_literature(amounts, averaging_solves, best_of_parts_solves):
    weights = (0.5, 0.5)
    tables = [goal_task(**one) for one in amounts]
    qs = [exact.soft_policy_iteration(table, COLD).q for table in tables]
    task = goal_task(**{name: 0.5 * sum(a.get(name, 0.0) for a in amounts) for name in GOALS})
    log_policies = [exact.log_policy(q, task.log_measure, COLD) for q in qs]
    averaged = exact.weighted_sum(qs, weights)
    evaluated = [exact.soft_evaluation(task, log_pi, COLD) for log_pi in log_policies]
    lacking = exact.divergence_correction(task, log_policies, weights, COLD)

    def earned(q):
        """Discounted return from the middle of acting by ``exp(Q / alpha)``."""
        log_pi = exact.log_policy(q, task.log_measure, COLD)
        of_each = exact.soft_evaluation(task, log_pi, 0.0)[MIDDLE]
        return float((np.exp(log_pi + task.log_measure)[MIDDLE] * of_each).sum())

    best = earned(exact.soft_policy_iteration(task, COLD).q)
    assert best > 0.3  # it does reach a goal
    assert earned(averaged - lacking) == pytest.approx(best, abs=1e-8)
    assert (earned(averaged) > 0.9 * best) == averaging_solves
    assert (earned(np.maximum(*evaluated)) > 0.9 * best) == best_of_parts_solves
    if not averaging_solves:
        assert earned(averaged) < -1.0  # it stays between the two until time has cost all
