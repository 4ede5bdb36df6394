"""Figure 1, in short: the learned policy goes to every goal; with the kernel off it does not."""

import numpy as np

from skillbank.config import Architecture, recipe
from skillbank.evaluation import evaluate
from skillbank.pretraining import pretrain

SMALL = Architecture(critic_hidden=(64, 64), sampler_hidden=(64,), couplings=4, coupling_hidden=16)


def shares(**changes):
    """Share of episodes that end at each of the four goals [4]."""
    quick = {
        "architecture": SMALL,
        "discount": 0.9,
        "batch_size": 128,
        "target_rate": 0.05,
        "learning_starts": 2_000,
        "total_steps": 20_000,
    }
    config = recipe("MultiGoal").model_copy(update=quick | changes)
    skill = pretrain("MultiGoal", config, seed=0)
    goal = evaluate(skill, "MultiGoal", episodes=400, seed=1, nominal_start=True).metrics["goal"]
    return np.bincount(goal[goal >= 0].astype(int), minlength=4) / len(goal)


def test_every_goal_is_visited():
    found = shares()
    assert found.min() >= 0.08, found
    assert found.sum() >= 0.9, found


def test_with_the_kernel_off_goals_are_lost():
    found = shares(objective="map", particles=4, proposals="uniform", value_samples=32)
    assert found.sum() >= 0.9, found
    assert found.max() >= 0.99, found
