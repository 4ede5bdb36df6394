"""The quadruped's body, reward, observation and falls, each against an independent account."""

import math

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from skillbank.envs import ant, quadruped
from skillbank.envs.physics_task import SMOOTHING
from skillbank.envs.quadruped import (
    ANGULAR_VELOCITY_UNIT,
    BODY_BLOCKS,
    FALLEN_UPRIGHTNESS,
    JOINT_VELOCITY_UNIT,
    QuadrupedHallwayNarrowVector,
    QuadrupedRunTowardVector,
    QuadrupedRunVector,
    QuadrupedTask,
    QuadrupedUMazeVector,
)
from skillbank.envs.simulation import SUBSTEPS, UnstableSimulationError, model_hash
from skillbank.envs.swimmer import SwimmerFinishLineVector


def running(seed: int = 0, **kwargs: float) -> QuadrupedTask:
    task = QuadrupedRunVector(num_envs=3, **kwargs)
    task.reset(seed=seed)
    return task


def split(observation: np.ndarray, blocks: tuple[tuple[str, int], ...]) -> dict[str, np.ndarray]:
    ends = np.cumsum([size for _, size in blocks])
    names = [name for name, _ in blocks]
    return dict(zip(names, np.split(observation, ends[:-1]), strict=True))


def test_the_whole_state_is_positions_and_velocities() -> None:
    model = running().simulation.model
    assert (model.nq, model.nv, model.nu, model.na, model.nhistory) == (15, 14, 8, 0, 0)
    assert model.opt.timestep == 0.01
    np.testing.assert_array_equal(model.actuator_ctrlrange, [[-1, 1]] * 8)


def test_batch_agrees_with_a_plain_loop_of_mj_step() -> None:
    task = running()
    model = task.simulation.model
    data = mujoco.MjData(model)
    data.qpos[:] = task.simulation.qpos[1]
    data.qvel[:] = task.simulation.qvel[1]
    random = np.random.default_rng(0)
    for _ in range(10):
        actions = random.uniform(-1, 1, (3, 8))
        task.step(actions)
        data.ctrl[:] = actions[1]
        for _ in range(SUBSTEPS):
            mujoco.mj_step(model, data)
    np.testing.assert_array_equal(task.simulation.qpos[1], data.qpos)
    np.testing.assert_array_equal(task.simulation.qvel[1], data.qvel)


def test_observation_against_mujoco_s_own_quantities() -> None:
    task = running()
    random = np.random.default_rng(0)
    for _ in range(20):
        observations, *_ = task.step(random.uniform(-1, 1, (3, 8)))
    seen = split(observations[2], BODY_BLOCKS)
    model = task.simulation.model
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = task.simulation.qpos[2], task.simulation.qvel[2]
    mujoco.mj_forward(model, data)
    mujoco.mj_subtreeVel(model, data)
    torso = model.body(ant.TORSO).id
    rotation = data.xmat[torso].reshape(3, 3)  # body to world
    velocity = np.zeros(6)
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, torso, velocity, 1)
    expected = {
        "height": data.xpos[torso, 2:],
        "gravity": rotation.T @ (0, 0, -1),
        "velocity": rotation.T @ data.subtree_linvel[torso],
        "angular_velocity": velocity[:3] / ANGULAR_VELOCITY_UNIT,
        "joint_positions": data.qpos[7:],
        "joint_velocities": data.qvel[6:] / JOINT_VELOCITY_UNIT,
        "average_velocity": rotation.T @ task._average_velocity[2],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(seen[name], value, rtol=0, atol=1e-6, err_msg=name)


def test_reward_is_the_smoothed_speed_of_the_centre_of_mass() -> None:
    task = running()
    model = task.simulation.model
    data = mujoco.MjData(model)

    def centre() -> np.ndarray:
        data.qpos[:] = task.simulation.qpos[0]
        mujoco.mj_fwdPosition(model, data)
        return data.subtree_com[0].copy()

    random = np.random.default_rng(2)
    smoothed, last = np.zeros(3), centre()
    for _ in range(30):
        _, rewards, *_ = task.step(random.uniform(-1, 1, (3, 8)))
        now = centre()
        smoothed += SMOOTHING * ((now - last) / 0.05 - smoothed)
        last = now
        assert rewards[0] == pytest.approx(np.hypot(*smoothed[:2]), abs=1e-10)


def test_shaking_on_the_spot_pays_little() -> None:
    task = running()
    rewards = np.zeros(3)
    for step in range(100):
        rewards += task.step(np.full((3, 8), 1.0 if step % 2 else -1.0))[1]
    assert (rewards / 100 < 0.25).all()  # the speed of the moment would pay 1.7 m/s


@pytest.mark.parametrize("direction", [0.0, 1.0, -2.5])
def test_run_toward_turns_with_its_direction(direction: float) -> None:
    """Turning the world turns the task: same observation; reward along the turned direction."""
    task = QuadrupedRunTowardVector(num_envs=1, direction=direction)
    straight = QuadrupedRunTowardVector(num_envs=1)
    for each in (task, straight):
        each.reset(seed=0)
    qpos, qvel = straight.simulation.qpos.copy(), straight.simulation.qvel.copy()
    turn = np.array([math.cos(direction / 2), 0, 0, math.sin(direction / 2)])
    w, z = qpos[0, 3], qpos[0, 6]  # a start is upright: only these two are not zero
    qpos[0, 3] = turn[0] * w - turn[3] * z
    qpos[0, 6] = turn[0] * z + turn[3] * w
    c, s = math.cos(direction), math.sin(direction)
    qvel[0, :2] = np.array([[c, -s], [s, c]]) @ qvel[0, :2]
    task.simulation.start(np.arange(1), qpos, qvel)
    np.testing.assert_allclose(task._observe(), straight._observe(), rtol=0, atol=1e-6)
    task._average_velocity[0] = (c, s, 0.0)
    assert task._reward_terms()["speed_toward"][0] == pytest.approx(1.0)
    task._average_velocity[0] = (-s, c, 0.0)
    assert task._reward_terms()["speed_toward"][0] == pytest.approx(0.0, abs=1e-12)


def test_a_yaw_from_another_direction_has_another_name() -> None:
    names = [
        [name for name, _ in QuadrupedRunTowardVector(num_envs=1, direction=d).observation_blocks]
        for d in (0.0, 1.0)
    ]
    assert [own[-1] for own in names] == ["heading", "bearing"]
    assert names[0][:-1] == names[1][:-1]


def test_run_toward_refuses_a_direction_that_is_none() -> None:
    with pytest.raises(ValueError, match="finite angle in radians"):
        gymnasium.make_vec("skillbank/QuadrupedRunToward-v0", num_envs=1, direction=math.nan)


def test_falling_over_ends_the_episode_and_standing_does_not() -> None:
    task = running()
    task.reset(options={"randomize": False})
    for tilt, fallen in ((0.0, False), (1.2, False), (1.6, True), (math.pi, True)):
        qpos = task.simulation.qpos.copy()
        qpos[:, 2] = 3.0
        qpos[:, 3:7] = math.cos(tilt / 2), math.sin(tilt / 2), 0.0, 0.0
        task.simulation.start(np.arange(3), qpos, 0.0)
        assert (math.cos(tilt) < FALLEN_UPRIGHTNESS) == fallen
        np.testing.assert_array_equal(task.fallen, fallen)
    _, _, terminated, truncated, info = task.step(np.zeros((3, 8)))
    assert terminated.all()
    assert not truncated.any()
    assert info["final_info"]["fallen"].all()
    assert not info["fallen"].any()


def test_smoothed_velocity_starts_at_zero_after_an_automatic_reset() -> None:
    task = QuadrupedRunVector(num_envs=2, max_episode_steps=10)
    task.reset(seed=0)
    for _ in range(10):
        observations, _, _, truncated, info = task.step(
            np.random.default_rng(0).uniform(-1, 1, 8) * np.ones((2, 8))
        )
    assert truncated.all()
    np.testing.assert_array_equal(observations[:, 26:29], 0.0)
    assert (info["final_obs"][:, 26:29] != 0).all()


def test_success_is_remembered_until_the_episode_ends() -> None:
    task = QuadrupedUMazeVector(num_envs=2, max_episode_steps=4)
    task.reset(seed=0)
    ((target_x, target_y),) = task.arena.targets
    start = task.simulation.qpos.copy()
    still = np.zeros((2, 8))

    def put_first_copy(place: tuple[float, float]) -> None:
        qpos = start[:1].copy()
        qpos[0, :2] = place
        task.simulation.start(np.array([0]), qpos, 0.0)

    put_first_copy((target_x + 0.5, target_y))
    _, rewards, _, _, info = task.step(still)
    np.testing.assert_array_equal(info["success"], [True, False])
    assert rewards[0] == pytest.approx(math.exp(-(info["distance"][0] ** 2) / 8), abs=1e-12)
    put_first_copy((target_x + 1.5, target_y))
    np.testing.assert_array_equal(task.step(still)[4]["success"], [True, False])
    task.step(still)
    *_, info = task.step(still)
    np.testing.assert_array_equal(info["final_info"]["success"], [True, False])
    np.testing.assert_array_equal(info["success"], [False, False])


def test_unstable_physics_is_an_error_that_names_the_copy() -> None:
    task = running()
    task.simulation.qvel[1, 8] = 1e12
    with pytest.raises(UnstableSimulationError, match="copy 1 became unstable") as caught:
        task.step(np.zeros((3, 8)))
    np.testing.assert_array_equal(caught.value.copies, [1])
    with pytest.raises(ResetNeeded, match="reset"):  # of all: the others have moved, unmeasured
        task.reset(options={"reset_mask": np.array([False, True, False])})
    task.reset(seed=0)  # and a reset is all it takes to go on
    assert np.isfinite(task.step(np.zeros((3, 8)))[0]).all()


def test_model_hash_is_about_what_moves() -> None:
    model = ant.model(running().arena)
    ball = "<mujoco><worldbody><body><freejoint/><geom size='.1' {}/></body></worldbody></mujoco>"
    plain, heavier, red = (
        mujoco.MjModel.from_xml_string(ball.format(extra))
        for extra in ("", "density='2000'", "rgba='1 0 0 1'")
    )
    assert model_hash(plain) == model_hash(red) != model_hash(heavier)
    assert model_hash(model) == running().model_hash != QuadrupedUMazeVector().model_hash


def test_starts_cover_what_they_say():
    task = QuadrupedUMazeVector(num_envs=400)
    task.reset(seed=0)
    headings = np.bincount(((task.heading + math.pi) / (2 * math.pi) * 8).astype(int), minlength=8)
    assert headings.min() > 25  # of 50: all eighths of the circle
    qpos, qvel = task.simulation.qpos, task.simulation.qvel
    for values, half in (
        (task.position - task.arena.start, task.start_spread),
        (qpos[:, 7:], quadruped.START_JOINT_ANGLE),
        (qvel, quadruped.START_SPEED),
    ):
        low, high = values.min(0), values.max(0)
        np.testing.assert_allclose(low, -half, atol=0.1 * half)
        np.testing.assert_allclose(high, half, atol=0.1 * half)


def test_an_arena_is_observed_in_its_unit_and_in_the_world():
    for task in (QuadrupedUMazeVector(num_envs=2), QuadrupedHallwayNarrowVector(num_envs=2)):
        observations, info = task.reset(seed=0)
        np.testing.assert_allclose(
            observations[:, -4:-2] * task.position_unit, info["position"], atol=1e-5
        )
        yaw = info["heading"]
        heading = np.stack([np.cos(yaw), np.sin(yaw)], 1)
        np.testing.assert_allclose(observations[:, -2:], heading, atol=1e-6)


@pytest.mark.parametrize("kind", [QuadrupedRunVector, SwimmerFinishLineVector])
def test_a_tenth_of_the_newest_velocity_enters_the_smoothed_one(kind):
    """It is what version 0 of these tasks rewards: another share is another task."""
    task = kind(num_envs=2)
    task.reset(seed=0)
    task._last_centre -= 0.02  # as if the body had come from there in the last step
    before, smoothed = task._last_centre.copy(), task._average_velocity.copy()
    task.step(np.ones((2, task.single_action_space.shape[0])))
    velocity = (task._centre - before) / 0.05
    np.testing.assert_allclose(task._average_velocity, 0.9 * smoothed + 0.1 * velocity, rtol=1e-12)
