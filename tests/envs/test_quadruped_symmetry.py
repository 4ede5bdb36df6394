"""The declared symmetries of the quadruped, held against the simulator itself.

State maps are written here from geometry alone (quaternions and mirrors), so that a wrong index or
sign in the declaration cannot hide.
"""

import math
from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import skillbank.envs
from skillbank.envs import quadruped
from skillbank.envs.quadruped import QuadrupedTask

State = tuple[np.ndarray, np.ndarray, np.ndarray]  # qpos [15], qvel [14], average velocity [3]

LEGS = ("front left", "front right", "back right", "back left")
STEPS = 20

CASES = [
    ("QuadrupedRun", {}, 8),
    ("QuadrupedRunToward", {"direction": 0.0}, 8),
    ("QuadrupedRunToward", {"direction": 3 * math.pi / 4}, 8),
    ("QuadrupedRunToward", {"direction": 0.3}, 4),
    ("QuadrupedHallwayWide", {}, 16),
    ("QuadrupedHallwayNarrow", {}, 16),
    ("QuadrupedUMaze", {}, 4),
    ("QuadrupedMaze", {}, 4),
]


def quaternion_product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    w = p[0] * q[0] - p[1:] @ q[1:]
    return np.array([w, *(p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:]))])


def about_z(angle: float) -> np.ndarray:
    return np.array([math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)])


def turned(state: State) -> State:
    """The torso's frame turned clockwise by 90 degrees, every limb left where it is."""
    qpos, qvel, average = (array.copy() for array in state)
    qpos[3:7] = quaternion_product(qpos[3:7], about_z(-math.pi / 2))
    x, y, z = qvel[3:6]  # in the torso's frame
    qvel[3:6] = -y, x, z
    new_name = {
        "front left": "back left",
        "front right": "front left",
        "back right": "front right",
        "back left": "back right",
    }
    for old, new in new_name.items():
        i, j = 2 * LEGS.index(old), 2 * LEGS.index(new)
        qpos[7 + j : 9 + j] = state[0][7 + i : 9 + i]
        qvel[6 + j : 8 + j] = state[1][6 + i : 8 + i]
    return qpos, qvel, average


def mirrored(angle: float) -> Callable[[State], State]:
    """The world in a vertical mirror through the origin along `angle`, left limbs called right."""
    c, s = math.cos(2 * angle), math.sin(2 * angle)
    mirror = np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, 1.0]])

    def act(state: State) -> State:
        qpos, qvel, average = (array.copy() for array in state)
        w, x, y, z = qpos[3:7]
        qpos[:3] = mirror @ qpos[:3]
        qpos[3:7] = quaternion_product(about_z(2 * angle), np.array([w, -x, y, -z]))
        qvel[:3] = mirror @ qvel[:3]
        qvel[3:6] *= (-1, 1, -1)
        for i, leg in enumerate(LEGS):
            side = "left" if leg.endswith("left") else "right"
            other = leg.replace(side, "right" if side == "left" else "left")
            j = LEGS.index(other)
            for start, array, old in ((7, qpos, state[0]), (6, qvel, state[1])):
                hip, ankle = old[start + 2 * i : start + 2 * i + 2]
                array[start + 2 * j : start + 2 * j + 2] = -hip, ankle
        return qpos, qvel, mirror @ average

    return act


def state_map(name: str, direction: float) -> Callable[[State], State]:
    single = {
        "identity": lambda state: state,
        "body turned by 90 degrees": turned,
        "mirrored north to south": mirrored(0.0),
        "mirrored east to west": mirrored(math.pi / 2),
        "mirrored along the direction": mirrored(direction),
    }

    def act(state: State) -> State:
        for part in name.split(", "):
            state = single[part](state)
        return state

    return act


def put(task: QuadrupedTask, states: list[State]) -> None:
    everyone = np.arange(task.num_envs)
    qpos, qvel, average = (np.stack(parts) for parts in zip(*states, strict=True))
    task.simulation.start(everyone, qpos, qvel)
    task._last_centre[:] = task._centre
    task._average_velocity[:] = average


@pytest.mark.parametrize(("name", "kwargs", "count"), CASES)
def test_symmetries_hold_in_the_simulator(name: str, kwargs: dict[str, float], count: int) -> None:
    vector_class = getattr(quadruped, f"{name}Vector")
    probe = vector_class(num_envs=1, **kwargs)
    symmetries = probe.symmetries
    assert len(symmetries) == count
    assert symmetries[0].name == "identity"

    random = np.random.default_rng(0)
    probe.reset(seed=0)
    for _ in range(25):  # mid-stride
        probe.step(random.uniform(-1, 1, (1, 8)))
    simulation = probe.simulation
    if probe.arena.room is not None:
        simulation.qpos[0, 1] = probe.arena.room[3] - 0.9  # within a leg's reach of the wall
    origin: State = (
        simulation.qpos[0].copy(),
        simulation.qvel[0].copy(),
        probe._average_velocity[0].copy(),
    )

    task = vector_class(num_envs=count, **kwargs)
    task.reset(seed=0)
    maps = [state_map(each.name, kwargs.get("direction", 0.0)) for each in symmetries]
    put(task, [act(origin) for act in maps])

    for _ in range(STEPS):
        action = random.uniform(-1, 1, 8)
        actions = np.stack([action[each.action_index] * each.action_sign for each in symmetries])
        observations, rewards, terminated, _, _ = task.step(actions)
        assert not terminated.any()
        assert np.abs(rewards - rewards[0]).max() < 1e-9
        for each, observation in zip(symmetries, observations, strict=True):
            expected = observations[0][each.observation_index] * each.observation_sign
            np.testing.assert_allclose(observation, expected, rtol=0, atol=2e-6, err_msg=each.name)

    end: State = (task.simulation.qpos[0], task.simulation.qvel[0], task._average_velocity[0])
    for copy, act in enumerate(maps):
        expected_qpos, expected_qvel, expected_average = act(end)
        qpos = task.simulation.qpos[copy].copy()
        if qpos[3:7] @ expected_qpos[3:7] < 0:  # a quaternion and its negative are one rotation
            qpos[3:7] *= -1
        np.testing.assert_allclose(qpos, expected_qpos, rtol=0, atol=1e-9)
        np.testing.assert_allclose(task.simulation.qvel[copy], expected_qvel, rtol=0, atol=1e-9)
        np.testing.assert_allclose(
            task._average_velocity[copy], expected_average, rtol=0, atol=1e-9
        )


def test_heading_turns_by_exactly_a_quarter_however_tilted() -> None:
    skillbank.envs.register()
    task = gymnasium.make_vec("skillbank/QuadrupedRun-v0", num_envs=2).unwrapped
    task.reset(seed=1)
    tilt = np.array([0.9, 0.3, -0.2, 0.25])
    tilt /= np.linalg.norm(tilt)
    qpos = np.zeros((2, 15))
    qpos[:, 2] = 2.0
    qpos[0, 3:7] = tilt
    qpos[1, 3:7] = quaternion_product(tilt, about_z(-math.pi / 2))
    task.simulation.start(np.arange(2), qpos, 0.0)
    before, after = task.heading
    assert math.remainder(before - after - math.pi / 2, 2 * math.pi) == pytest.approx(0, abs=1e-12)
