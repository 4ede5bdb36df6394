"""What every environment of skillbank must do, checked for every id."""

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv
from skillbank.envs import ENV_IDS
from stable_baselines3.common.env_checker import check_env as stable_baselines_check

pytestmark = pytest.mark.parametrize("env_id", ENV_IDS)


def make_vec(env_id: str, num_envs: int, **kwargs: Any) -> VectorEnv:
    return gymnasium.make_vec(env_id, num_envs=num_envs, **kwargs)


def random_actions(env: VectorEnv, seed: int, steps: int) -> np.ndarray:
    low, high = env.single_action_space.low, env.single_action_space.high
    shape = (steps, env.num_envs, len(low))
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def roll(env: VectorEnv, seed: int, actions: np.ndarray) -> list[np.ndarray]:
    observations, _ = env.reset(seed=seed)
    seen = [observations]
    for action in actions:
        observations, rewards, terminated, truncated, _ = env.step(action)
        seen += [observations, rewards, terminated, truncated]
    return seen


def test_gymnasium_checks_pass(env_id: str) -> None:
    env = gymnasium.make(env_id)
    with warnings.catch_warnings():
        # Observations have no bound that would be worth stating.
        warnings.filterwarnings("ignore", message=".*Box observation space (min|max)imum value")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_stable_baselines_checks_pass(env_id: str) -> None:
    stable_baselines_check(gymnasium.make(env_id))


def test_spaces_and_metadata(env_id: str) -> None:
    env = make_vec(env_id, 3)
    task = env.unwrapped
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.observation_space.shape == (3, *env.single_observation_space.shape)
    assert env.single_observation_space.dtype == np.float32
    width = sum(size for _, size in task.observation_blocks)
    assert env.single_observation_space.shape == (width,)
    observations, _ = env.reset(seed=0)
    assert observations in env.observation_space
    actions = env.action_space.sample()
    observations, rewards, terminated, truncated, _ = env.step(actions)
    assert observations in env.observation_space
    assert rewards.shape == terminated.shape == truncated.shape == (3,)
    assert rewards.dtype == np.float64
    assert terminated.dtype == truncated.dtype == np.bool_
    assert task.control_timestep > 0
    if "MultiGoal" in env_id:
        assert task.model_hash is None
    else:
        assert len(task.model_hash) == 64


def test_single_says_the_same_of_itself_as_vectorised(env_id: str) -> None:
    one, many = gymnasium.make(env_id), make_vec(env_id, 2)
    assert one.observation_space == many.single_observation_space
    assert one.action_space == many.single_action_space
    a, b = one.unwrapped, many.unwrapped
    for name in ("observation_blocks", "model_hash", "control_timestep", "arena"):
        assert getattr(a, name) == getattr(b, name)
    assert [each.name for each in a.symmetries] == [each.name for each in b.symmetries]
    assert one.spec is not None
    assert one.spec.max_episode_steps == b.max_episode_steps


def test_same_seed_same_episode(env_id: str) -> None:
    env = make_vec(env_id, 2)
    actions = random_actions(env, 7, 40)
    first, second = roll(env, 5, actions), roll(env, 5, actions)
    other = roll(make_vec(env_id, 2), 5, actions)
    for a, b, c in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_threads_change_nothing(env_id: str) -> None:
    actions = random_actions(make_vec(env_id, 4), 3, 20)
    one = roll(make_vec(env_id, 4), 1, actions)
    two = roll(make_vec(env_id, 4, num_threads=2), 1, actions)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_starts_differ_between_copies_episodes_and_seeds(env_id: str) -> None:
    env = make_vec(env_id, 4)
    first, _ = env.reset(seed=0)
    second, _ = env.reset()
    third, _ = env.reset(seed=100)
    starts = np.concatenate([first, second, third])
    assert len(np.unique(starts, axis=0)) == 12


def test_nominal_start_is_one_start(env_id: str) -> None:
    env = make_vec(env_id, 3)
    observations, _ = env.reset(seed=0, options={"randomize": False})
    assert len(np.unique(observations, axis=0)) == 1
    again, _ = env.reset(seed=1, options={"randomize": False})
    np.testing.assert_array_equal(observations, again)
    random, _ = env.reset()
    assert len(np.unique(random, axis=0)) == 3


def test_one_copy_equals_n_copies(env_id: str) -> None:
    many = make_vec(env_id, 3, max_episode_steps=25)
    actions = random_actions(many, 11, 60)
    ones = [make_vec(env_id, 1, max_episode_steps=25) for _ in range(3)]
    observations, _ = many.reset(seed=20)
    for i, one in enumerate(ones):
        np.testing.assert_array_equal(one.reset(seed=20 + i)[0][0], observations[i])
    for action in actions:  # across automatic resets
        observations, rewards, terminated, truncated, _ = many.step(action)
        for i, one in enumerate(ones):
            alone = one.step(action[i : i + 1])
            np.testing.assert_array_equal(alone[0][0], observations[i])
            assert (alone[1][0], alone[2][0], alone[3][0]) == (
                rewards[i],
                terminated[i],
                truncated[i],
            )


def test_final_observation_is_what_a_lone_environment_ends_with(env_id: str) -> None:
    steps = 6
    many = make_vec(env_id, 2, max_episode_steps=steps)
    one = gymnasium.make(env_id, max_episode_steps=steps)
    actions = random_actions(many, 4, steps) * 0.1  # too small to end the episode early
    many.reset(seed=8)
    one.reset(seed=9)
    for action in actions:
        observations, rewards, terminated, truncated, info = many.step(action)
        alone, reward, alone_terminated, alone_truncated, alone_info = one.step(action[1])
    assert not alone_terminated
    assert alone_truncated
    assert not terminated.any()
    assert truncated.all()
    assert info["_final_obs"].all()
    assert info["final_obs"].dtype == np.float32
    assert rewards[1] == reward
    np.testing.assert_array_equal(info["final_obs"][1], alone)
    assert (observations[1] != alone).any()
    for key, value in alone_info.items():
        np.testing.assert_array_equal(info["final_info"][key][1], value)


def test_final_observation_only_where_an_episode_ended(env_id: str) -> None:
    env = make_vec(env_id, 2, max_episode_steps=4)
    env.reset(seed=0)
    actions = random_actions(env, 0, 4) * 0.1
    env.step(actions[0])
    env.step(actions[1])
    env.reset(options={"reset_mask": np.array([True, False])})
    env.step(actions[2])
    _, _, _, truncated, info = env.step(actions[3])
    np.testing.assert_array_equal(truncated, [False, True])
    np.testing.assert_array_equal(info["_final_obs"], [False, True])


def test_partial_reset_leaves_the_others_alone(env_id: str) -> None:
    env, control = make_vec(env_id, 3), make_vec(env_id, 3)
    actions = random_actions(env, 2, 10) * 0.1
    env.reset(seed=0)
    control.reset(seed=0)
    for action in actions[:5]:
        before, *_ = env.step(action)
        control.step(action)
    mask = np.array([False, True, False])
    after, _ = env.reset(seed=[None, 77, None], options={"reset_mask": mask})
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert (after[1] != before[1]).any()
    np.testing.assert_array_equal(after[1], make_vec(env_id, 1).reset(seed=77)[0][0])
    for action in actions[5:]:
        there, here = env.step(action)[0], control.step(action)[0]
        np.testing.assert_array_equal(there[~mask], here[~mask])


def test_a_partial_reset_says_for_its_copies_alone_where_they_start(env_id: str) -> None:
    env = make_vec(env_id, 2, max_episode_steps=2)
    nominal, _ = env.reset(options={"randomize": False})
    both = np.array([True, True])
    with pytest.raises(ResetNeeded, match="first reset must be of all"):
        make_vec(env_id, 2).reset(options={"reset_mask": ~both | [True, False]})
    env.reset(seed=np.array([5, 6]), options={"reset_mask": np.array([True, False])})
    still = np.zeros(env.action_space.shape)
    env.step(still)
    env.reset(options={"reset_mask": np.array([True, False])})
    after, *_ = env.step(still)  # the second copy began anew, by itself
    np.testing.assert_array_equal(after[1], nominal[1])
    env.step(still)
    assert (env.step(still)[0][0] != nominal[0]).any()


def test_info_at_reset_and_step(env_id: str) -> None:
    env = make_vec(env_id, 4)
    _, at_reset = env.reset(seed=0)
    _, rewards, _, _, at_step = env.step(env.action_space.sample())
    assert set(at_reset) <= set(at_step)
    expected = {"position"}
    if "Quadruped" in env_id:
        expected |= {"heading", "fallen"}
    if "Maze" in env_id:
        expected |= {"distance", "success"}
    if "Hallway" in env_id:
        expected |= {"progress"}
    if "Goal" in env_id or "Reach" in env_id:
        expected |= {"goal", "success"}
    assert expected <= set(at_reset)
    for info in (at_reset, at_step):
        assert info["position"].shape == (4, 2)
        for key, values in info.items():
            assert len(values) == 4, key
            if not key.startswith("_"):
                assert info[f"_{key}"].all()
    terms = [values for key, values in at_step.items() if key.startswith("reward/")]
    np.testing.assert_allclose(sum(terms), rewards, rtol=0, atol=1e-12)


def test_info_is_not_overwritten_by_later_steps(env_id: str) -> None:
    env = make_vec(env_id, 2)
    _, info = env.reset(seed=0)
    kept = {key: values.copy() for key, values in info.items()}
    for action in random_actions(env, 0, 5):
        env.step(action)
    for key, values in info.items():
        np.testing.assert_array_equal(values, kept[key])


def test_random_actions_stay_finite(env_id: str) -> None:
    env = make_vec(env_id, 4)
    env.reset(seed=0)
    for action in random_actions(env, 1, 120):
        observations, rewards, *_ = env.step(action)
        assert np.isfinite(observations).all()
        assert np.isfinite(rewards).all()


def test_actions_beyond_the_bounds_are_clipped(env_id: str) -> None:
    a, b = make_vec(env_id, 2), make_vec(env_id, 2)
    a.reset(seed=0)
    b.reset(seed=0)
    action = np.full(a.action_space.shape, 0.9, np.float32)
    action[:, 0] = 1.0
    np.testing.assert_array_equal(a.step(action)[0], b.step(np.where(action == 1, 7, action))[0])


def test_mistakes_are_named(env_id: str) -> None:
    env = make_vec(env_id, 2)
    good = np.zeros(env.action_space.shape)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(good)
    with pytest.raises(ValueError, match="unknown reset option 'randomise'"):
        env.reset(options={"randomise": False})
    with pytest.raises(ValueError, match="3 seeds for 2 copies"):
        env.reset(seed=[1, 2, 3])
    env.reset(seed=0)
    with pytest.raises(ValueError, match="reset_mask must be a bool array of shape"):
        env.reset(options={"reset_mask": np.array([True])})
    with pytest.raises(ValueError, match="actions must have shape"):
        env.step(good[0])
    bad = good.copy()
    bad[1, 0] = np.nan
    with pytest.raises(ValueError, match="action of copy 1 at its step 0 is not finite"):
        env.step(bad)
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        make_vec(env_id, 0)
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array'"):
        make_vec(env_id, 1, render_mode="humans")


def test_symmetries_are_signed_permutations(env_id: str) -> None:
    task = make_vec(env_id, 1).unwrapped
    size = task.single_observation_space.shape[0]
    symmetries = task.symmetries
    assert symmetries[0].name == "identity"
    np.testing.assert_array_equal(symmetries[0].observation_index, np.arange(size))
    assert len({each.name for each in symmetries}) == len(symmetries)
    for each in symmetries:
        np.testing.assert_array_equal(np.sort(each.observation_index), np.arange(size))
        assert each.observation_index.dtype == np.int64
        assert each.observation_sign.dtype == np.float32
        assert set(np.abs(each.observation_sign)) == {1.0}
        assert set(np.abs(each.action_sign)) == {1.0}
