"""The paper's theorems and appendices on random finite processes, held to their own statements.

Equation numbers are the paper's. Actions carry a base measure, as cells of a box do, and alpha is
kept where the paper sets it to 1.
"""

import numpy as np
import pytest

from skillbank import exact

SEEDS = range(4)
GAMMA = 0.9


def random_table(seed, *, states=6, actions=4, discount=GAMMA, terminal=False):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.4), size=(states, actions))
    ends = np.arange(states) == states - 1 if terminal else None
    reward = rng.normal(size=(states, actions))
    measure = 0.3 * rng.normal(size=actions)
    return exact.stochastic(transition, reward, discount, terminal=ends, log_measure=measure), rng


def random_log_policy(rng, table):
    """Log-density over the table's base measure of an arbitrary policy."""
    return exact.log_policy(2.0 * rng.normal(size=table.reward.shape), table.log_measure, 1.0)


def mass_of(table, log_pi):
    return np.exp(log_pi + table.log_measure)


def soft_return(table, log_pi, alpha, horizon=400):
    """V of a policy [S] by unrolling rewards and entropies, eq. 2: no Bellman equation is used."""
    mass = mass_of(table, log_pi)
    gain = (mass * (table.reward - alpha * log_pi)).sum(1)
    move = np.zeros((len(gain), len(gain)))
    for s, a, n in np.ndindex(table.successor.shape):
        move[s, table.successor[s, a, n]] += mass[s, a] * table.probability[s, a, n]
    total, reached = np.zeros(len(gain)), np.eye(len(gain))
    for t in range(horizon):
        total += table.discount**t * (reached @ gain)
        reached = reached @ move
    return total


# Theorem 1: the policy exp((Q* - V*) / alpha) maximises the maximum-entropy objective.


@pytest.mark.parametrize("alpha", [0.1, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_theorem_1_the_boltzmann_policy_of_the_soft_q_is_optimal_from_every_state(seed, alpha):
    table, rng = random_table(seed, terminal=seed % 2 == 0)
    q, value = exact.soft_q_iteration(table, alpha, 1e-12)
    best = exact.log_policy(q, table.log_measure, alpha)
    np.testing.assert_allclose(mass_of(table, best).sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(soft_return(table, best, alpha), value, atol=1e-9)
    for _ in range(20):
        assert (soft_return(table, random_log_policy(rng, table), alpha) <= value + 1e-9).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_theorem_1_the_optimum_is_strict(seed):
    # any change of the policy at any state costs something there
    table, rng = random_table(seed)
    alpha = 0.5
    q, value = exact.soft_q_iteration(table, alpha, 1e-12)
    for state in range(len(value)):
        changed = exact.log_policy(q, table.log_measure, alpha)
        bent = q[state] + alpha * 0.3 * rng.normal(size=q.shape[1])
        changed[state] = exact.log_policy(bent[np.newaxis], table.log_measure, alpha)[0]
        assert soft_return(table, changed, alpha)[state] < value[state] - 1e-6


# Theorem 2: the soft Q-function satisfies Q = r + gamma E V, V = alpha log INT exp(Q / alpha).


@pytest.mark.parametrize("seed", SEEDS)
def test_theorem_2_the_soft_bellman_equation_holds_for_the_q_of_the_optimal_policy(seed):
    # Q is taken from its definition (eq. 4): reward now, then what the policy earns
    table, _ = random_table(seed, terminal=seed % 2 == 1)
    alpha = 0.3
    q_star, _ = exact.soft_q_iteration(table, alpha, 1e-12)
    log_pi = exact.log_policy(q_star, table.log_measure, alpha)
    earned = soft_return(table, log_pi, alpha)
    q = np.zeros_like(table.reward)
    for s, a in np.ndindex(q.shape):
        ahead = sum(
            p * earned[following]
            for following, p in zip(table.successor[s, a], table.probability[s, a], strict=True)
        )
        q[s, a] = table.reward[s, a] + table.discount * ahead
    value = alpha * np.log(np.exp(table.log_measure + q / alpha).sum(1))
    np.testing.assert_allclose(value, earned, atol=1e-9)
    np.testing.assert_allclose(q, q_star, atol=1e-9)


def test_theorem_2_holds_for_no_other_policy():
    table, rng = random_table(0)
    alpha = 0.3
    log_pi = random_log_policy(rng, table)
    q = exact.soft_evaluation(table, log_pi, alpha)
    value = exact.soft_value(q, table.log_measure, alpha)
    assert (value > soft_return(table, log_pi, alpha) + 1e-3).all()


# Theorem 3: soft Q-iteration converges to Q* and V* from any start.


@pytest.mark.parametrize("seed", SEEDS)
def test_theorem_3_iteration_converges_from_anywhere_at_the_rate_of_the_discount(seed):
    table, rng = random_table(seed)
    alpha = 0.4
    q_star, value_star = exact.soft_q_iteration(table, alpha, 1e-13)
    q = 100.0 * rng.normal(size=q_star.shape)
    first = np.abs(q - q_star).max()
    for step in range(1, 301):
        q = exact.soft_backup(table, exact.soft_value(q, table.log_measure, alpha))
        assert np.abs(q - q_star).max() <= GAMMA**step * first + 1e-9
    np.testing.assert_allclose(exact.soft_value(q, table.log_measure, alpha), value_star, atol=1e-9)


# Appendix A.2: the soft Bellman operator is a gamma-contraction in the maximum norm (eq. 24, 25).


@pytest.mark.parametrize("alpha", [1e-3, 0.3, 30.0])
@pytest.mark.parametrize("discount", [0.5, 0.99])
def test_appendix_a_the_soft_backup_contracts_by_the_discount(alpha, discount):
    for seed in SEEDS:
        table, rng = random_table(seed, discount=discount)

        def backup(q, table=table):
            return exact.soft_backup(table, exact.soft_value(q, table.log_measure, alpha))

        for _ in range(20):
            one, two = 5.0 * rng.normal(size=(2, *table.reward.shape))
            apart = np.abs(one - two).max()
            assert np.abs(backup(one) - backup(two)).max() <= discount * apart * (1 + 1e-12)
        # the bound is tight: a constant shift shrinks by exactly gamma
        np.testing.assert_allclose(backup(one + 7.0), backup(one) + discount * 7.0, atol=1e-9)


# Theorem 4: acting by exp(Q^pi / alpha) never lowers Q, and repeated it leads to Q* (eq. 17 to 21).


@pytest.mark.parametrize("alpha", [0.1, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_theorem_4_improvement_is_monotone_in_every_state_and_action(seed, alpha):
    table, rng = random_table(seed, terminal=seed % 2 == 0)
    q_star, _ = exact.soft_q_iteration(table, alpha, 1e-13)
    log_pi = random_log_policy(rng, table)
    q = exact.soft_evaluation(table, log_pi, alpha)
    strictly = False
    for _ in range(8):
        log_pi = exact.log_policy(q, table.log_measure, alpha)
        better = exact.soft_evaluation(table, log_pi, alpha)
        assert (better >= q - 1e-10).all()
        strictly |= bool((better > q + 1e-6).any())
        q = better
    assert strictly
    np.testing.assert_allclose(q, q_star, atol=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_theorem_4_the_greedy_step_gains_exactly_the_divergence(seed):
    # eq. 19: alpha H(pi) + E_pi Q = -alpha KL(pi || pi~) + alpha log INT exp(Q / alpha)
    table, rng = random_table(seed)
    alpha = 0.7
    log_pi = random_log_policy(rng, table)
    q = exact.soft_evaluation(table, log_pi, alpha)
    greedy = exact.log_policy(q, table.log_measure, alpha)
    mass = mass_of(table, log_pi)
    one_step = (mass * (q - alpha * log_pi)).sum(1)
    divergence = (mass * (log_pi - greedy)).sum(1)
    value = exact.soft_value(q, table.log_measure, alpha)
    np.testing.assert_allclose(one_step, value - alpha * divergence, atol=1e-10)
    assert (divergence > 0.0).all()


# Appendix B: the entropy-regularised policy gradient is the soft Q-learning update.


def energy_of(parameters, features):
    """E(s, a) [S, A], not linear in the parameters, so that nothing cancels by accident."""
    return np.tanh(features @ parameters) + 0.1 * (features @ parameters) ** 2


def gradient(function, parameters, step=1e-6):
    """Central differences of a function of parameters [P]: [..., P]."""
    columns = []
    for index in range(len(parameters)):
        shift = step * np.eye(len(parameters))[index]
        columns.append((function(parameters + shift) - function(parameters - shift)) / (2 * step))
    return np.stack(columns, -1)


def appendix_b(seed):
    table, rng = random_table(seed)
    features = rng.normal(size=(*table.reward.shape, 5))
    parameters = 0.5 * rng.normal(size=5)
    energy = energy_of(parameters, features)
    log_pi = exact.log_policy(energy, table.log_measure, 1.0)
    states = rng.dirichlet(np.ones(len(energy)))  # rho(s), held fixed as in the paper
    joint = states[:, np.newaxis] * mass_of(table, log_pi)
    q_hat = rng.normal(size=energy.shape)  # any estimate: it is not differentiated
    return table, features, parameters, joint, states, q_hat


@pytest.mark.parametrize("seed", SEEDS)
def test_appendix_b_policy_gradient_equals_the_soft_q_learning_update(seed):
    table, features, parameters, joint, states, q_hat = appendix_b(seed)

    def log_policy(p):
        return exact.log_policy(energy_of(p, features), table.log_measure, 1.0)

    def partition(p):
        return exact.soft_value(energy_of(p, features), table.log_measure, 1.0)

    def entropy(p):
        log_pi = log_policy(p)
        return -(states[:, np.newaxis] * mass_of(table, log_pi) * log_pi).sum()

    energy, bar = energy_of(parameters, features), partition(parameters)
    # eq. 27, with the baseline b(s) = E_bar(s) + 1
    baseline = (bar + 1.0)[:, np.newaxis]
    score = gradient(log_policy, parameters)  # [S, A, P]
    policy_gradient = np.einsum("sa,sap->p", joint * (q_hat + baseline), score)
    policy_gradient += gradient(entropy, parameters)

    # eq. 29
    difference = (
        gradient(lambda p: energy_of(p, features), parameters)
        - gradient(partition, parameters)[:, np.newaxis]
    )
    simple = np.einsum("sa,sap->p", joint * (q_hat - energy), difference)
    np.testing.assert_allclose(policy_gradient, simple, atol=1e-7)

    # eq. 30 to 32: the Bellman error with target A_hat + V, A_hat held fixed
    advantage = q_hat - bar[:, np.newaxis]

    def bellman_error(p):
        target = advantage + partition(p)[:, np.newaxis]
        return 0.5 * (joint * (target - energy_of(p, features)) ** 2).sum()

    update = -gradient(bellman_error, parameters)
    np.testing.assert_allclose(update, policy_gradient, atol=1e-7)
    assert np.abs(update).max() > 1e-2


@pytest.mark.parametrize("seed", SEEDS)
def test_appendix_b_the_baseline_does_not_matter_but_the_entropy_does(seed):
    table, features, parameters, joint, states, _ = appendix_b(seed)
    score = gradient(
        lambda p: exact.log_policy(energy_of(p, features), table.log_measure, 1.0), parameters
    )
    np.testing.assert_allclose(
        np.einsum("sa,s,sap->p", joint, np.arange(1.0, 1 + len(states)), score), 0.0, atol=1e-7
    )
    # at the true Q of the policy of its own energy the update is zero only with the entropy term
    log_pi = exact.log_policy(energy_of(parameters, features), table.log_measure, 1.0)
    own = np.einsum("sa,sap->p", joint * log_pi, score)
    assert np.abs(own).max() > 1e-2


def test_appendix_b_following_the_update_leads_to_the_soft_optimal_policy():
    # with an energy for every state and action and exact Q: E = Q* up to a constant in each state
    table, _ = random_table(2)
    q_star, _ = exact.soft_q_iteration(table, 1.0, 1e-13)
    optimum = exact.log_policy(q_star, table.log_measure, 1.0)
    energy = np.zeros_like(q_star)
    for _ in range(1200):
        log_pi = exact.log_policy(energy, table.log_measure, 1.0)
        mass = mass_of(table, log_pi)
        error = mass * (exact.soft_evaluation(table, log_pi, 1.0) - energy)
        energy = energy + 2.0 * (error - mass * error.sum(1, keepdims=True))  # eq. 29
    np.testing.assert_allclose(log_pi, optimum, atol=1e-6)
    offset = energy - q_star
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:, :1], offset.shape), atol=1e-6)
    assert np.abs(offset).max() > 0.1  # Q itself is not found, only up to a constant
