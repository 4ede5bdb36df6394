"""The whole algorithm on a small continuous process, against soft Q-iteration on a fine grid."""

import numpy as np
import pytest
from small_worlds import point_step

from skillbank import exact
from skillbank.config import Architecture, PretrainConfig
from skillbank.pretraining import pretrain

GAMMA, ALPHA = 0.8, 0.1
# grid points and action cells of each dimension; halving both moves V by under 0.5 % of its range
FINENESS = {1: (81, 60), 2: (25, 14)}


def oracle(dimensions):
    """Exact Q [S, A] and V [S] of the point, with the grid's axes and the actions [A, d]."""
    points, cells = FINENESS[dimensions]

    def step(state, action):
        following, reward = point_step(state, action)
        return following, reward, np.zeros(len(state))  # episodes end by the clock alone

    axes = [np.linspace(-1, 1, points)] * dimensions
    table, _, actions = exact.discretise(step, axes, dimensions, cells, GAMMA)
    return exact.soft_policy_iteration(table, ALPHA), axes, actions


def learned(dimensions):
    config = PretrainConfig(
        architecture=Architecture(
            critic_hidden=(64, 64), sampler_hidden=(32,), coupling_hidden=16, couplings=2
        ),
        temperature=ALPHA,
        discount=GAMMA,
        batch_size=64 if dimensions == 1 else 128,
        target_rate=0.05,
        learning_starts=2_000,
        total_steps=14_000 if dimensions == 1 else 18_000,
    )
    env_id = {1: "SmallWorld/Line-v0", 2: "SmallWorld/Plane-v0"}[dimensions]
    return pretrain(env_id, config, seed=0)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_learned_q_and_value_are_those_of_exact_soft_q_iteration(dimensions):
    """One dimension learns by the Stein direction and uniform proposals, two by densities."""
    skill = learned(dimensions)
    (q, value), axes, actions = oracle(dimensions)
    spread = np.ptp(value)
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (400, dimensions))
    chosen = rng.integers(len(actions), size=400)  # any action, not only the policy's own
    q_exact = exact.interpolate(states, axes, q)[np.arange(400), chosen]
    q_error = np.abs(skill.q(states, actions[chosen]) - q_exact).mean() / spread
    value_error = np.abs(skill.value(states) - exact.interpolate(states, axes, value)).mean()
    assert q_error < 0.05
    assert value_error / spread < 0.05
    assert spread > 10 * ALPHA  # the range is that of a task, and not of the noise

    # and the sampling network draws from exp(Q / alpha): its mean action, state by state
    density = np.exp(exact.log_policy(q, np.zeros(len(actions)), ALPHA))
    mean_exact = exact.interpolate(states[:50], axes, density @ actions)
    mean = skill.sample(states[:50], 400, seed=0).mean(1)
    assert np.abs(mean - mean_exact).mean() < 0.1
