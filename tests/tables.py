"""Random finite processes, on which soft Q-iteration is exact."""

from dataclasses import replace

import numpy as np

from skillbank import exact


def random_table(seed, *, kind="stochastic", states=7, actions=5, discount=0.9, terminal=True):
    """Random dynamics with three rewards; the last state ends the episode where it is terminal."""
    rng = np.random.default_rng(seed)
    log_measure = rng.normal(size=actions) * 0.3
    ends = (np.arange(states) == states - 1) if terminal else None
    options = {"terminal": ends, "log_measure": log_measure}
    rewards = [rng.normal(size=(states, actions)) for _ in range(3)]
    if kind == "deterministic":
        successor = rng.integers(states, size=(states, actions))
        return exact.deterministic(successor, rewards[0], discount, **options), rewards
    transition = rng.dirichlet(np.full(states, 0.3), size=(states, actions))
    return exact.stochastic(transition, rewards[0], discount, **options), rewards


def with_reward(table, reward):
    return replace(table, reward=reward)
