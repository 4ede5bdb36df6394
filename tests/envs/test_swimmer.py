"""The swimmer can go both ways, and only one of them pays more."""

import math

import numpy as np
import pytest
from skillbank.envs import swimmer
from skillbank.envs.swimmer import (
    FINISH_LINE,
    FINISH_REWARD,
    SPEED_UNIT,
    SwimmerFinishLineVector,
)


def undulate(frequency: float, lag: float, amplitude: float, steps: int) -> tuple[list, list, list]:
    """Joints that follow a travelling wave; frequency in Hz, lag and amplitude in rad."""
    task = SwimmerFinishLineVector(num_envs=1, max_episode_steps=None)
    task.reset(seed=0, options={"randomize": False})
    rewards, places, successes = [], [], []
    for step in range(steps):
        phase = 2 * math.pi * frequency * step * task.control_timestep
        wanted = amplitude * np.sin(phase + lag * np.arange(2))
        angles = task.simulation.qpos[0, 3:]
        _, reward, _, _, info = task.step(np.clip(4 * (wanted - angles), -1, 1)[np.newaxis])
        rewards.append(reward[0])
        places.append(info["progress"][0])
        successes.append(info["success"][0])
    return rewards, places, successes


def test_forward_crosses_the_line_and_is_paid_for_it() -> None:
    rewards, places, successes = undulate(0.98, -0.56, 1.51, 320)
    crossed = np.array(places) > FINISH_LINE
    assert crossed[-1]
    np.testing.assert_array_equal(successes, crossed.cumsum() > 0)
    assert min(np.array(rewards)[crossed]) >= FINISH_REWARD
    assert max(np.array(rewards)[~crossed]) < FINISH_REWARD


def test_backward_is_as_fast_and_never_pays_more() -> None:
    rewards, places, successes = undulate(0.82, 0.27, 1.71, 320)
    assert places[-1] < -FINISH_LINE
    assert not any(successes)
    assert max(rewards) < FINISH_REWARD
    # Over many strokes the mean reward is the mean speed, but for the smoothing's delay.
    assert np.mean(rewards[100:]) == pytest.approx(
        (places[100] - places[-1]) / (220 * 0.05) / SPEED_UNIT, rel=0.25
    )


def test_random_actions_do_not_get_there() -> None:
    task = SwimmerFinishLineVector(num_envs=16)
    task.reset(seed=0)
    random = np.random.default_rng(0)
    for _ in range(200):
        *_, info = task.step(random.uniform(-1, 1, (16, 2)))
    assert np.abs(info["progress"]).max() < FINISH_LINE / 2


def test_a_straight_swimmer_lies_over_the_origin_facing_east() -> None:
    task = SwimmerFinishLineVector(num_envs=1)
    _, info = task.reset(options={"randomize": False})
    np.testing.assert_allclose(info["position"], 0, atol=1e-9)
    np.testing.assert_allclose(info["heading"], 0, atol=1e-12)
    data = task.simulation.batch.get_data(0)
    nose = data.geom("nose").xpos
    assert nose[0] > 0.1


def test_the_mirror_holds_in_the_simulator() -> None:
    task = SwimmerFinishLineVector(num_envs=2)
    mirror = task.symmetries[1]
    task.reset(seed=0)
    qpos, qvel = task.simulation.qpos.copy(), np.array([[0.1, -0.05, 1.0, 2.0, -1.0]] * 2)
    yaw = qpos[0, 2] - math.pi / 2
    # The root joint sits 0.05 m behind the origin of the model and 0.05 m right of it once the
    # nose points east, so the mirror of the joint's y is about 0.05.
    qpos[1] = (qpos[0, 0], 0.1 - qpos[0, 1], math.pi / 2 - yaw, *-qpos[0, 3:])
    qvel[1, 1:] *= -1
    task.simulation.start(np.arange(2), qpos, qvel)
    task._last_centre[:] = task._centre
    random = np.random.default_rng(1)
    for _ in range(20):
        action = random.uniform(-1, 1, 2)
        observations, rewards, *_ = task.step(np.stack([action, -action]))
        assert rewards[0] == pytest.approx(rewards[1], abs=1e-9)
        np.testing.assert_allclose(
            observations[1],
            observations[0][mirror.observation_index] * mirror.observation_sign,
            atol=1e-6,
        )
        np.testing.assert_allclose(task.position[1], task.position[0] * (1, -1), atol=1e-9)


def test_a_swimmers_observation_against_mujocos_own_quantities():
    import mujoco

    task = SwimmerFinishLineVector(num_envs=2)
    task.reset(seed=0)
    random = np.random.default_rng(0)
    for _ in range(40):
        task.step(random.uniform(-1, 1, (2, 2)))
    moved = task.simulation.qpos + np.array([0.3, -0.2, 2.0, 0.0, 0.0])
    task.simulation.start(np.arange(2), moved, task.simulation.qvel.copy())
    names, sizes = zip(*task.observation_blocks, strict=True)
    parts = np.split(task._observe()[1], np.cumsum(sizes)[:-1])
    seen = dict(zip(names, parts, strict=True))
    model = task.simulation.model
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = task.simulation.qpos[1], task.simulation.qvel[1]
    mujoco.mj_forward(model, data)
    mujoco.mj_subtreeVel(model, data)
    head = model.body("head").id
    nose = data.geom("nose").xpos[:2] - data.xpos[head][:2]
    ahead = nose / np.hypot(*nose)
    frame = np.array([ahead, [-ahead[1], ahead[0]]])  # rows: ahead and to the left
    expected = {
        "joint_positions": data.qpos[3:],
        "velocity": frame @ data.subtree_linvel[head][:2] / swimmer.VELOCITY_UNIT,
        "angular_velocity": data.qvel[2:3] / swimmer.ANGULAR_VELOCITY_UNIT,
        "joint_velocities": data.qvel[3:] / swimmer.ANGULAR_VELOCITY_UNIT,
        "average_velocity": frame @ task._average_velocity[1] / swimmer.VELOCITY_UNIT,
        "position": data.subtree_com[head][:1] / swimmer.FINISH_LINE,
        "heading": ahead,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(seen[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_a_swimmers_next_episode_remembers_nothing():
    task = SwimmerFinishLineVector(num_envs=1, max_episode_steps=2)
    task.reset(seed=0)
    far = task.simulation.qpos.copy()
    far[0, 0] += 2 * swimmer.FINISH_LINE
    task.simulation.start(np.arange(1), far, 0.0)
    task.step(np.zeros((1, 2)))
    *_, info = task.step(np.zeros((1, 2)))
    assert info["final_info"]["success"][0]
    assert not info["success"][0]
    np.testing.assert_array_equal(task._average_velocity, 0.0)
    _, reward, *_ = task.step(np.zeros((1, 2)))  # and it has not flown back to the start
    assert reward[0] < 0.5


def test_a_swimmers_starts_cover_what_they_say():
    task = SwimmerFinishLineVector(num_envs=200)
    task.reset(seed=0)
    for values in (task.heading, *task.simulation.qpos[:, 3:].T):
        ends = (values.min(), values.max())
        np.testing.assert_allclose(ends, (-swimmer.START_ANGLE, swimmer.START_ANGLE), atol=0.01)
