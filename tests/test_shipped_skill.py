"""The shipped skill does what its card says, and stays between the walls."""

import numpy as np
import pytest

import skillbank
from skillbank.task import Task

BODY = 0.2  # m; the torso's radius is 0.25, so a centre nearer than this is inside a wall


@pytest.fixture(scope="module")
def run_anywhere():
    return skillbank.Bank().load("run_anywhere")


def test_runs_far_in_every_direction_without_falling(run_anywhere):
    found = skillbank.evaluate(
        run_anywhere, "skillbank/QuadrupedRun-v0", episodes=100, seed=3, nominal_start=True
    )
    assert found.metrics["net_distance"].mean() > 40.0  # m in 25 s
    assert found.metrics["fallen"].mean() <= 0.05
    assert found.sectors.min() >= 0.02  # 4 % over 400 episodes; 100 scatter more


def test_is_what_the_recipe_makes(run_anywhere):
    from skillbank.config import recipe

    assert run_anywhere.spec.config == recipe("QuadrupedRun")
    assert len(run_anywhere.spec.symmetries) == 8


@pytest.mark.parametrize("task", ["QuadrupedHallwayNarrow", "QuadrupedUMaze", "QuadrupedMaze"])
def test_never_passes_a_wall(run_anywhere, task):
    envs = Task(task, 34)  # 34 copies, 1000 steps each in three arenas: 100,000 trained steps
    policy = run_anywhere.fitted_to(envs)
    obs = envs.reset(seed=5)
    x_min, y_min, x_max, y_max = envs.arena.room
    for _ in range(1000):
        step = envs.step(policy.predict(obs.numpy())[0], scaled=False)
        obs = step.obs
        x, y = np.asarray(step.info["position"]).T
        assert (x > x_min + BODY).all()
        assert (x < x_max - BODY).all()
        assert (y > y_min + BODY).all()
        assert (y < y_max - BODY).all()
        for left, low, right, high in envs.arena.blocks:
            inside = (x > left) & (x < right) & (y > low) & (y < high)
            assert not inside.any()
    envs.close()
