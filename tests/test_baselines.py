"""Stable-Baselines3 through our adapter."""

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import SAC

from skillbank.baselines import StableBaselinesTask
from skillbank.task import Task


def test_it_steps_as_the_task_does():
    envs, task = StableBaselinesTask("PointMassRun", 3), Task("PointMassRun", 3)
    envs.seed(7)
    np.testing.assert_array_equal(envs.reset(), task.reset(seed=7).numpy())
    generator = np.random.default_rng(0)
    total = np.zeros(3)
    for step in range(1, 102):
        action = generator.uniform(-1.0, 1.0, (3, envs.action_space.shape[0]))
        obs, reward, ended, infos = envs.step(action)
        theirs = task.step(action, scaled=False)
        np.testing.assert_array_equal(obs, theirs.obs.numpy())
        np.testing.assert_array_equal(reward, theirs.reward.numpy())
        assert ended.tolist() == [step == 100] * 3
        if step <= 100:
            total += reward
        if step == 100:
            for copy, info in enumerate(infos):
                assert info["TimeLimit.truncated"]
                assert info["episode"]["l"] == 100
                assert info["episode"]["r"] == pytest.approx(total[copy])
                np.testing.assert_array_equal(
                    info["terminal_observation"], theirs.next_obs[copy].numpy()
                )
        else:
            assert infos == [{}, {}, {}]


def test_options_of_a_reset_count_once():
    envs = StableBaselinesTask("PointMassRun", 3)
    envs.seed(7)
    envs.set_options({"randomize": False})
    nominal = envs.reset()
    assert (nominal == nominal[0]).all()
    assert (envs.reset() != nominal).any()


def test_a_goal_reached_is_a_success_and_no_truncation():
    envs = StableBaselinesTask("PointMassReach", 8)
    envs.seed(0)
    envs.reset()
    assert envs.env_is_wrapped(gymnasium.Wrapper) == [False] * 8
    infos = []
    for _ in range(100):
        infos += [i for i in envs.step(np.zeros((8, envs.action_space.shape[0])))[3] if i]
    assert len(infos) == 8
    assert not any(info["is_success"] for info in infos)  # nobody moved


def test_sac_learns_a_few_steps():
    envs = StableBaselinesTask("PointMassRun", 2)
    model = SAC("MlpPolicy", envs, learning_starts=20, batch_size=16, device="cpu")
    model.learn(60)
    assert model.num_timesteps == 60
    action, _ = model.predict(envs.reset())
    assert np.abs(action).max() <= 1.0
