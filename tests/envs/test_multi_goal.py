"""The multi-goal plane against its definition, written out again one point at a time."""

import numpy as np
import pytest
from skillbank.envs.multi_goal import GOALS, MultiGoalVector


def reference(place: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
    action = np.clip(action, -1, 1)
    place = np.clip(place + action, -7, 7)
    nearest = min((place[0] - x) ** 2 + (place[1] - y) ** 2 for x, y in GOALS)
    reward = -30 * (action[0] ** 2 + action[1] ** 2) - nearest
    return place, reward + (10 if nearest < 1 else 0), nearest < 1


def test_steps_follow_the_definition() -> None:
    task = MultiGoalVector(num_envs=50, max_episode_steps=None)
    task.reset(seed=0)
    random = np.random.default_rng(1)
    ended = 0
    for _ in range(40):
        before = task.position
        actions = random.uniform(-1.3, 1.3, (50, 2))
        observations, rewards, terminated, _, info = task.step(actions)
        for i in range(50):
            place, reward, done = reference(before[i], actions[i])
            assert rewards[i] == pytest.approx(reward, abs=1e-12)
            assert terminated[i] == done
            if done:
                ended += 1
                np.testing.assert_allclose(info["final_obs"][i], place, atol=1e-6)
                goal = GOALS[info["final_info"]["goal"][i]]
                assert np.hypot(*(place - goal)) < 1
                assert info["final_info"]["success"][i]
            else:
                np.testing.assert_allclose(observations[i], place, atol=1e-6)
                assert info["goal"][i] == -1
    assert ended > 20


def test_every_goal_can_be_reached_and_is_named() -> None:
    for index, goal in enumerate(GOALS):
        task = MultiGoalVector(num_envs=1)
        task.reset(seed=0)
        for _ in range(5):
            _, _, terminated, _, info = task.step(np.sign([goal]))
            if terminated[0]:
                break
        assert info["final_info"]["goal"][0] == index


def test_starts_are_normal_around_the_origin() -> None:
    starts, _ = MultiGoalVector(num_envs=4000).reset(seed=0)
    np.testing.assert_allclose(starts.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(starts.std(axis=0), 0.1, rtol=0.05)


def test_symmetries_hold() -> None:
    symmetries = MultiGoalVector().symmetries
    assert len(symmetries) == 8
    random = np.random.default_rng(0)
    for _ in range(100):
        place, action = random.uniform(-7, 7, 2), random.uniform(-1, 1, 2)
        after, reward, done = reference(place, action)
        for each in symmetries:
            turned = reference(
                place[each.observation_index] * each.observation_sign,
                action[each.action_index] * each.action_sign,
            )
            expected = after[each.observation_index] * each.observation_sign
            np.testing.assert_allclose(turned[0], expected, atol=1e-12)
            assert turned[1:] == (pytest.approx(reward), done)


def test_the_reward_of_places_is_that_of_standing_there() -> None:
    task = MultiGoalVector(num_envs=1)
    for place in ((0.3, -2.0), (4.5, 0.2), (-6.0, 6.0)):
        _, reward, _ = reference(np.array(place), np.zeros(2))
        assert task.place_reward(np.array([place])) == pytest.approx([reward])
    assert task.place_reward(task.goal_places) == pytest.approx([10.0] * 4)
