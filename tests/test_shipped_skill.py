"""The shipped skills do what their cards say, stay between the walls, and compose."""

import warnings

import numpy as np
import pytest

import skillbank
from skillbank.export import from_safetensors, to_safetensors
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


@pytest.mark.parametrize("name", skillbank.Bank(shipped=True).names())
def test_stays_itself_however_it_is_copied(tmp_path, name):
    skill = skillbank.Bank(shipped=True).load(name)
    original = skill.content_hash
    bank = skillbank.Bank(tmp_path / "bank", shipped=True)
    assert bank.save(skill, name) == f"{name}@1"  # it has it already
    skill.save(tmp_path / "copy.h5")
    assert skillbank.Skill.load(tmp_path / "copy.h5").content_hash == original
    to_safetensors(bank.read(name), tmp_path / "copy.safetensors")
    assert from_safetensors(tmp_path / "copy.safetensors").content_hash == original
    assert skill.with_spec(description="mine").spec.config == skill.spec.config


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


@pytest.mark.parametrize(
    "name", ["point_run_east", "point_run_north", "point_reach_left", "point_reach_right"]
)
def test_scores_at_its_own_task_what_its_card_says(name):
    skill = skillbank.Bank(shipped=True).load(name)
    [told] = skill.spec.evaluations
    found = skillbank.evaluate(skill, episodes=100, seed=2026)
    assert found.mean_return == pytest.approx(told.mean_return, rel=0.03)


def test_run_north_is_run_east_turned():
    bank = skillbank.Bank()
    for name, wanted in (("run_east", 0.0), ("run_north", np.pi / 2)):
        found = skillbank.evaluate(bank.load(name), "QuadrupedRunToward", episodes=10, seed=4)
        assert found.metrics["net_distance"].mean() > 40.0  # m in 25 s
        assert np.abs(found.metrics["direction"] - wanted).max() < 0.2


def test_the_mean_of_two_directions_runs_between_them():
    bank = skillbank.Bank()
    both = bank.load("point_run_east") & bank.load("point_run_north")
    with pytest.warns(UserWarning, match=r"differ in direction \(0.0, 1.57.*direction=\.\.\."):
        anyway = skillbank.evaluate(both, episodes=20, seed=4)
    found = skillbank.evaluate(both, "PointMassRunToward", episodes=20, seed=4)
    np.testing.assert_array_equal(found.returns, anyway.returns)
    assert np.abs(np.degrees(found.metrics["direction"]).mean() - 45.0) < 8.0
    assert found.metrics["net_distance"].mean() > 7.0  # m in 5 s; one alone makes 8


def test_either_of_two_goals_is_the_nearer_one():
    bank = skillbank.Bank()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # these tasks are what a soft-OR is for
        either = bank.load("point_reach_left") | bank.load("point_reach_right")
    goals = {"goals": ("left", "right")}
    found = skillbank.evaluate(either, "PointMassReach", episodes=60, seed=4, **goals)
    assert found.metrics["success"].mean() >= 0.95
    left = (found.metrics["goal"] == 2).mean()
    assert 0.2 < left < 0.8  # from the middle both are used
