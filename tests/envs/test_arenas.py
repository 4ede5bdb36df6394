"""Arenas: what stands where, and that nobody goes through a wall."""

import math

import gymnasium
import mujoco
import numpy as np
import pytest
from skillbank.envs import arenas
from skillbank.envs.arenas import Arena

WALLED = [
    "QuadrupedHallwayWide",
    "QuadrupedHallwayNarrow",
    "QuadrupedUMaze",
    "QuadrupedMaze",
    "PointMassHallway",
    "PointMassUMaze",
    "PointMassMaze",
]
LEG_SPAN = 2.3  # m, of the quadruped


def inside(points: np.ndarray, rectangle: arenas.Rectangle) -> np.ndarray:
    x_min, y_min, x_max, y_max = rectangle
    x, y = points[..., 0], points[..., 1]
    return (x_min < x) & (x < x_max) & (y_min < y) & (y < y_max)


def free_points(arena: Arena, clearance: float, count: int, seed: int) -> np.ndarray:
    """Random places in the room at least `clearance` from every wall, near the start."""
    random = np.random.default_rng(seed)
    x_min, y_min, x_max, y_max = arena.room
    x_min, x_max = max(x_min, arena.start[0] - 20), min(x_max, arena.start[0] + 20)
    points = random.uniform((x_min, y_min), (x_max, y_max), (20 * count, 2))
    good = np.ones(len(points), bool)
    for a, b, c, d in arena.walls:
        good &= ~inside(points, (a - clearance, b - clearance, c + clearance, d + clearance))
    assert good.sum() >= count
    return points[good][:count]


@pytest.mark.parametrize("name", WALLED)
def test_nobody_goes_through_a_wall(name: str) -> None:
    copies = 64
    env = gymnasium.make_vec(f"skillbank/{name}-v0", num_envs=copies, max_episode_steps=None)
    task = env.unwrapped
    quadruped = name.startswith("Quadruped")
    env.reset(seed=0)
    random = np.random.default_rng(1)
    arena = task.arena
    # Thrown at the walls from everywhere, three times as fast as anyone runs.
    clearance = 1.2 if quadruped else 0.3
    places = free_points(arena, clearance, copies, seed=2)
    angle = random.uniform(-math.pi, math.pi, copies)
    speed = 8.0
    qpos, qvel = task.simulation.qpos.copy(), np.zeros_like(task.simulation.qvel)
    qpos[:, :2] = places
    qvel[:, 0], qvel[:, 1] = speed * np.cos(angle), speed * np.sin(angle)
    task.simulation.start(np.arange(copies), qpos, qvel)
    size = env.single_action_space.shape[0]
    action = random.uniform(-1, 1, (copies, size))
    seen_near_wall = np.zeros(copies, bool)
    for step in range(60 if quadruped else 150):
        if step % 10 == 0:  # held for half a second: a push, not a tremble
            action = random.uniform(-1, 1, (copies, size))
        env.step(action)
        place = task.position
        assert inside(place, arena.room).all()
        for wall in arena.walls:
            assert not inside(place, wall).any()
            a, b, c, d = wall
            near = (a - clearance, b - clearance, c + clearance, d + clearance)
            seen_near_wall |= inside(place, near)
    assert seen_near_wall.mean() > 0.4  # the walls were really met


@pytest.mark.parametrize("name", WALLED)
def test_walls_are_where_the_arena_says(name: str) -> None:
    task = gymnasium.make_vec(f"skillbank/{name}-v0", num_envs=1).unwrapped
    model = task.simulation.model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    drawn = sorted(
        np.ravel(
            [data.geom(g).xpos[:2] + side * model.geom(g).size[:2] for side in (-1, 1)]
        ).tolist()
        for g in range(model.ngeom)
        if model.geom(g).name.startswith("wall_")
    )
    np.testing.assert_allclose(drawn, sorted(map(list, task.arena.walls)), atol=1e-12)
    for x_min, y_min, x_max, y_max in task.arena.walls:
        assert min(x_max - x_min, y_max - y_min) >= (1.0 if "Quadruped" in name else 0.25)
    clear = {"Wide": 8.0, "Narrow": 4.0}
    for width_name, width in clear.items():
        if width_name in name:
            assert task.arena.room[3] - task.arena.room[1] == width > LEG_SPAN


def reachable(arena: Arena, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Cells of 0.1 m that a disc of radius `margin` can get to from the start, and their places."""
    step = 0.1
    x_min, y_min, x_max, y_max = arena.room
    xs = np.arange(x_min + step / 2, x_max, step)
    ys = np.arange(y_min + step / 2, y_max, step)
    places = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)
    free = np.ones(places.shape[:2], bool)
    for a, b, c, d in arena.walls:
        free &= ~inside(places, (a - margin, b - margin, c + margin, d + margin))
    reached = np.zeros_like(free)
    reached[tuple(((np.array(arena.start) - (x_min, y_min)) / step).astype(int))] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= free
        if (grown == reached).all():
            return reached, places
        reached = grown


@pytest.mark.parametrize("arena", [arenas.U_MAZE, arenas.MAZE], ids=lambda arena: arena.name)
def test_target_can_be_reached_by_something_as_wide_as_the_quadruped(arena: Arena) -> None:
    reached, places = reachable(arena, LEG_SPAN / 2)
    distance = np.hypot(*np.moveaxis(places - np.array(arena.targets[0]), -1, 0))
    assert distance[reached].min() < arena.success_radius


def test_maze_threshold_is_the_best_the_upper_passage_offers() -> None:
    arena = arenas.MAZE
    # With the lower passage closed, nothing gets nearer to the target than the threshold.
    closed = arena._replace(blocks=(*arena.blocks, (8.0, -4.5, 9.0, -0.5)))
    reached, places = reachable(closed, 0.0)
    distance = np.hypot(*np.moveaxis(places - np.array(arena.targets[0]), -1, 0))
    assert distance[reached].min() == pytest.approx(arena.threshold, abs=0.1)
    assert distance[reached].min() >= arena.threshold
    # The passages look the same from the start: their walls mirror each other up to the barrier.
    lower = {(a, -d, c, -b) for a, b, c, d in arena.walls if c <= 8.0}
    assert lower == {wall for wall in arena.walls if wall[2] <= 8.0}


def test_u_maze_hides_its_target_behind_the_wall() -> None:
    arena = arenas.U_MAZE
    reached, places = reachable(arena, 0.25)
    in_start_leg = reached & (places[..., 1] < 0) & (places[..., 0] < 8.0)
    distance = np.hypot(*np.moveaxis(places - np.array(arena.targets[0]), -1, 0))
    reward = np.exp(-0.5 * (distance / arena.reward_width) ** 2)
    assert reward[in_start_leg].max() < 0.11


def test_scaling_scales_everything() -> None:
    small = arenas.scaled(arenas.MAZE, 0.25)
    np.testing.assert_allclose(small.walls, np.array(arenas.MAZE.walls) / 4)
    np.testing.assert_allclose(small.bounds, np.array(arenas.MAZE.bounds) / 4)
    assert small.targets == ((3.5, 0.0),)
    assert small.threshold == pytest.approx(arenas.MAZE.threshold / 4)
    assert (small.reward_width, small.success_radius) == (1.25, 0.25)
