"""Pictures, and what happens where none can be drawn."""

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from skillbank.envs import ENV_IDS
from skillbank.envs.rendering import DEBIAN_PACKAGES, RenderingUnavailableError

IN_A_FRESH_PROCESS = """
import os, sys
os.environ.pop("MUJOCO_GL", None)
import gymnasium, skillbank.envs
skillbank.envs.register()
env = gymnasium.make("skillbank/QuadrupedRun-v0"{kwargs})
env.reset(seed=0)
env.step(env.action_space.sample())
{rest}
"""


def draw(env: Any) -> Any:
    """What `render` gives; None on a machine without OpenGL, once it has said what to install."""
    try:
        return env.render()
    except RenderingUnavailableError as error:
        if DEBIAN_PACKAGES not in str(error):
            raise
        return None


def drawn_at_start(name: str, **kwargs: Any) -> Any:
    """The first frame of a task as floats, or None as `draw`."""
    env = gymnasium.make(f"skillbank/{name}-v0", render_mode="rgb_array", **kwargs)
    env.reset(seed=0)
    frame = draw(env)
    env.close()
    return None if frame is None else frame.astype(float)


def python(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("env_id", ["skillbank/MultiGoal-v0", "skillbank/PointMassUMaze-v0"])
def test_a_frame_is_a_picture_of_the_state(env_id: str) -> None:
    env = gymnasium.make_vec(env_id, num_envs=2, render_mode="rgb_array", width=96, height=64)
    env.reset(seed=0)
    first = draw(env)
    if first is None:
        return
    assert len(first) == 2
    for frame in first:
        assert frame.shape == (64, 96, 3)
        assert frame.dtype == np.uint8
        assert frame.std() > 5
    for _ in range(6):
        env.step(np.full(env.action_space.shape, 0.5))
    second = draw(env)
    assert (second[0] != first[0]).any()
    env.close()


def test_follow_and_overhead_see_different_things() -> None:
    frames = []
    for camera in ("follow", "overhead"):
        frame = drawn_at_start("QuadrupedUMaze", camera=camera, width=96, height=64)
        if frame is None:
            return
        frames.append(frame)
    assert np.abs(frames[0] - frames[1]).mean() > 5
    # North is up and east is right: the red target is in the upper left quarter.
    red = frames[1][..., 0] - frames[1][..., 1] > 60
    rows, columns = np.nonzero(red)
    assert rows.mean() < 32
    assert columns.mean() < 48


def test_wanted_goals_are_marked() -> None:
    wanted = {"goals": ("up", "right")}
    frame = drawn_at_start("PointMassReach", **wanted, camera="overhead", width=64, height=64)
    if frame is None:
        return
    red = frame[..., 0] - frame[..., 1] > 40
    red[24:40, 24:40] = False  # the sphere, at the start
    rows, columns = np.nonzero(red)
    up, right = (rows < 24) & (abs(columns - 32) < 8), (columns > 40) & (abs(rows - 32) < 8)
    assert up.sum() > 9
    assert right.sum() > 9
    assert (up | right).all()


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_bad_render_arguments_are_refused_at_once(env_id: str) -> None:
    with pytest.raises(ValueError, match="camera must be 'follow' or 'overhead'"):
        gymnasium.make_vec(env_id, num_envs=1, camera="side")
    with pytest.raises(ValueError, match="up to 1920 x 1080 pixels, got 4000 x 10"):
        gymnasium.make_vec(env_id, num_envs=1, width=4000, height=10)


def test_without_a_render_mode_nothing_is_drawn() -> None:
    env = gymnasium.make_vec("skillbank/PointMassRun-v0", num_envs=1)
    env.reset(seed=0)
    assert env.render() is None


def test_training_loads_no_opengl() -> None:
    done = python(
        IN_A_FRESH_PROCESS.format(
            kwargs="", rest="print([m for m in ('OpenGL', 'mujoco.egl') if m in sys.modules])"
        )
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert done.stderr == ""


def test_an_environment_imports_nothing_heavy_before_it_is_made() -> None:
    done = python(
        "import sys, skillbank.envs; skillbank.envs.register(); "
        "print([m for m in ('mujoco', 'dm_control', 'torch') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_opengl_names_the_packages_to_install() -> None:
    done = python(
        IN_A_FRESH_PROCESS.format(
            kwargs=", render_mode='rgb_array'",
            rest="sys.modules['mujoco.egl'] = None  # as if its import failed\nenv.render()",
        )
    )
    assert done.returncode != 0
    assert "RenderingUnavailableError" in done.stderr
    assert "install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libopengl0" in done.stderr


def test_the_shadow_goes_with_the_body() -> None:
    envs = gymnasium.make_vec("skillbank/QuadrupedRun-v0", num_envs=1, render_mode="rgb_array")
    envs.reset(seed=0, options={"randomize": False})
    near = draw(envs)
    if near is None:
        return
    envs.unwrapped.simulation.qpos[:, 0] += 40.0  # the floor's squares are alike there
    envs.step(np.zeros((1, 8), np.float32))
    far = draw(envs)
    envs.close()
    # What is dark and not brown, as the body is, is shadow.
    dark = [((p[0].max(-1) < 120) & (p[0][..., 2] >= p[0][..., 0])).sum() for p in (near, far)]
    assert dark[0] > 100
    assert dark[1] > 0.8 * dark[0]


@pytest.mark.parametrize(
    ("env_id", "away"),
    [("QuadrupedHallwayNarrow", 0.7), ("QuadrupedHallwayWide", 0.7), ("PointMassHallway", 0.15)],
)
def test_no_wall_hides_the_body(env_id: str, away: float) -> None:
    """Beside the southern wall, which is between it and the camera."""
    envs = gymnasium.make_vec(f"skillbank/{env_id}-v0", num_envs=1, render_mode="rgb_array")
    envs.reset(seed=0, options={"randomize": False})
    middle = draw(envs)
    if middle is None:
        return
    task = envs.unwrapped
    task.simulation.qpos[0, 1] = task.arena.room[1] + away
    envs.step(np.zeros(envs.action_space.shape, np.float32))
    beside = draw(envs)
    envs.close()
    seen = [(p[0][..., 0].astype(int) - p[0][..., 2] > 40).sum() for p in (middle, beside)]
    assert seen[1] > 0.6 * seen[0] > 100  # of what is brown or orange
