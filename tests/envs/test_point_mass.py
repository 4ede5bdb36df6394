"""The point mass: how it moves, what it is paid, and the places that end its episodes."""

import math

import gymnasium
import numpy as np
import pytest
from skillbank.envs.point_mass import (
    MAX_SPEED,
    REACH_GOALS,
    RISE_TIME,
    START_SPEED,
    START_SPREAD,
    PointMassHallwayVector,
    PointMassReachVector,
    PointMassRunTowardVector,
    PointMassRunVector,
    PointMassTask,
    PointMassUMazeVector,
)


def test_speed_rises_to_the_top_speed_in_the_stated_time() -> None:
    task = PointMassRunVector(num_envs=1)
    task.reset(seed=0)
    task.simulation.start(np.arange(1), np.zeros((1, 2)), 0.0)
    action = np.array([[1.0, 0.0]])
    for step in range(60):
        _, rewards, *_ = task.step(action)
        expected = MAX_SPEED * (1 - math.exp(-(step + 1) * 0.05 / RISE_TIME))
        assert task.velocity[0, 0] == pytest.approx(expected, rel=0.03)
        assert rewards[0] == pytest.approx(np.hypot(*task.velocity[0]))
    assert task.velocity[0, 0] == pytest.approx(MAX_SPEED, rel=1e-3)


def test_no_direction_is_faster_than_another() -> None:
    angles = np.linspace(-math.pi, math.pi, 9)
    task = PointMassRunVector(num_envs=9)
    task.reset(seed=0, options={"randomize": False})
    box_edge = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    box_edge /= np.abs(box_edge).max(axis=1, keepdims=True)
    for _ in range(40):
        _, rewards, *_ = task.step(box_edge)
    np.testing.assert_allclose(rewards, rewards[0], rtol=1e-9)
    np.testing.assert_allclose(np.cos(np.arctan2(*task.velocity.T[::-1]) - angles), 1.0, atol=1e-9)


def test_run_toward_pays_the_component_along_its_direction() -> None:
    task = PointMassRunTowardVector(num_envs=1, direction=math.pi / 3)
    task.reset(seed=0)
    _, rewards, *_ = task.step(np.array([[0.3, -0.9]]))
    vx, vy = task.velocity[0]
    assert rewards[0] == pytest.approx(vx * math.cos(math.pi / 3) + vy * math.sin(math.pi / 3))


@pytest.mark.parametrize("cls", [PointMassRunVector, PointMassHallwayVector])
def test_symmetries_hold_in_the_simulator(cls: type[PointMassTask]) -> None:
    symmetries = cls(num_envs=1).symmetries
    assert len(symmetries) == {PointMassRunVector: 8, PointMassHallwayVector: 4}[cls]
    task = cls(num_envs=len(symmetries))
    task.reset(seed=0)
    place, velocity = np.array([0.2, 0.3]), np.array([0.5, 1.9])  # towards a hallway's wall
    # Its action is a vector of the plane too, so a symmetry's action part moves places as well.
    moved = [
        (v[each.action_index] * each.action_sign) for each in symmetries for v in (place, velocity)
    ]
    task.simulation.start(np.arange(len(symmetries)), np.stack(moved[::2]), np.stack(moved[1::2]))
    random = np.random.default_rng(0)
    for _ in range(20):
        action = random.uniform(-1, 1, 2)
        actions = np.stack([action[each.action_index] * each.action_sign for each in symmetries])
        observations, rewards, *_ = task.step(actions)
        np.testing.assert_allclose(rewards, rewards[0], rtol=0, atol=1e-9)
        for copy, each in enumerate(symmetries):
            for array in (task.position, task.velocity):
                np.testing.assert_allclose(
                    array[copy], array[0][each.action_index] * each.action_sign, atol=1e-9
                )
            np.testing.assert_allclose(
                observations[copy],
                observations[0][each.observation_index] * each.observation_sign,
                atol=1e-6,
            )


def test_a_walk_around_the_corners_reaches_the_target() -> None:
    task = PointMassUMazeVector(num_envs=1)
    task.reset(seed=0)
    way = np.array([(2.5, -0.75), (2.5, 0.75), (0.5, 0.75)])
    stop, info = 0, {}
    for _ in range(100):
        away = way[stop] - task.position[0]
        if np.hypot(*away) < 0.2 and stop < 2:
            stop += 1
        *_, info = task.step(5 * away[np.newaxis])
        if info["success"][0]:
            break
    assert info["success"][0]


@pytest.mark.parametrize("wanted", list(REACH_GOALS))
@pytest.mark.parametrize("reached", list(REACH_GOALS))
def test_every_goal_ends_the_episode_and_only_the_wanted_one_pays(
    wanted: str, reached: str
) -> None:
    task = PointMassReachVector(num_envs=1, goals=(wanted,))
    task.reset(seed=0)
    total, steps = 0.0, 0
    while steps < 100:
        _, rewards, terminated, _, info = task.step(np.array([REACH_GOALS[reached]]))
        total, steps = total + rewards[0], steps + 1
        if terminated[0]:
            break
    assert terminated[0]
    assert info["final_info"]["goal"][0] == list(REACH_GOALS).index(reached)
    assert info["final_info"]["success"][0] == (wanted == reached)
    assert total == pytest.approx((10.0 if wanted == reached else 0.0) - 0.25 * steps)


def test_unknown_goals_are_refused() -> None:
    for goals in (("left", "north"), ()):
        with pytest.raises(ValueError, match="right, up, left, down"):
            gymnasium.make_vec("skillbank/PointMassReach-v0", num_envs=1, goals=goals)


def test_starts_fill_their_square_of_places_and_of_velocities():
    task = PointMassUMazeVector(num_envs=400)
    task.reset(seed=0)
    starts = np.concatenate([task.position - task.arena.start, task.velocity], axis=1)
    half = np.repeat([START_SPREAD, START_SPEED], 2)
    np.testing.assert_allclose(starts.min(0), -half, atol=0.02)
    np.testing.assert_allclose(starts.max(0), half, atol=0.02)
    assert np.abs(np.corrcoef(starts.T) - np.eye(4)).max() < 0.2  # each by itself


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_progress_is_from_the_start_either_way(way):
    task = PointMassHallwayVector(num_envs=2)
    _, info = task.reset(seed=0)
    start = task.position[:, 0]
    np.testing.assert_array_equal(info["progress"], 0.0)
    for _ in range(20):
        *_, info = task.step(np.array([[way, 0.0]] * 2))
    assert (info["progress"] > 0.5).all()
    np.testing.assert_allclose(info["progress"], way * (task.position[:, 0] - start))
