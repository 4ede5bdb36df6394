"""Record films of a skill from the frames that the environment renders."""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skillbank.durable import as_path
from skillbank.errors import InvalidArgument, StorageError, UnsupportedEnvironment
from skillbank.evaluation import (
    Policy,
    check_policy,
    checked_numbers,
    fitted,
    stepped,
    task_of,
)
from skillbank.task import Task

Frame = NDArray[np.uint8]
DEFAULT_FPS = 20


def film(
    skill: Policy,
    env_id: str | None,
    path: str | Path,
    *,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = False,
    report: Callable[[], object] = lambda: None,
    env_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> int:
    """Write a film of whole episodes, in real time if the task declares ``render_fps``.

    One frame is rendered before each step, so the last state of an episode is not shown.

    Args:
        skill: A skill, or any policy with Stable-Baselines3's ``predict``.
        env_id: A Gymnasium id, or the bare name of one of skillbank's tasks; None: the skill's own
            task, with the environment keywords stored in the skill.
        path: Path of the film, ``.mp4`` or ``.gif``.
        episodes: Number of episodes, one after the other.
        seed: Seed of the starts and of the skill's random actions.
        deterministic: Take the best action in each state instead of a random one.
        report: Called after each frame.
        env_kwargs: Keyword arguments of the environment.
        kwargs: The same, as separate keywords.

    Returns:
        The number of frames.

    Raises:
        InvalidArgument: The suffix is neither, or ``episodes`` or ``seed`` is invalid.
        UnsupportedEnvironment: Unknown id, or the task cannot be rendered.
        IncompatibleSkill: The skill does not fit the task.
        StorageError: The film cannot be written.
    """
    path = as_path(path)
    mp4 = path.suffix.lower() == ".mp4"
    if not mp4 and path.suffix.lower() != ".gif":
        raise InvalidArgument(f"a film is .mp4 or .gif, not '{path.name}'")
    check_policy(skill)
    episodes, seed = checked_numbers(episodes, seed)
    env_id, kwargs = task_of(skill, env_id, {**(env_kwargs or {}), **kwargs})
    task = Task(env_id, 1, render_mode="rgb_array", **kwargs)
    try:
        fps = float(task.envs.metadata.get("render_fps", DEFAULT_FPS))
        frames = _frames(fitted(skill, task, seed), task, episodes, seed, deterministic, report)
        # Render the first frame before a file is created, so that rendering errors come first.
        frames = itertools.chain([next(frames)], frames)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".film.", dir=path.parent) as folder:
            unfinished = Path(folder) / path.name
            count = (
                _write_mp4(unfinished, frames, fps) if mp4 else _write_gif(unfinished, frames, fps)
            )
            unfinished.replace(path)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise StorageError(f"cannot write {path}: {reason}") from error
    finally:
        task.close()
    return count


def _write_mp4(path: Path, frames: Iterator[Frame], fps: float) -> int:
    import imageio.v2 as imageio

    count = 0
    writer: Any = imageio.get_writer(path, fps=fps, macro_block_size=2, ffmpeg_log_level="quiet")
    with writer:
        for frame in frames:
            writer.append_data(frame)
            count += 1
    return count


def _write_gif(path: Path, frames: Iterator[Frame], fps: float) -> int:
    import imageio.v3 as imageio

    pictures = list(frames)
    data = imageio.imwrite("<bytes>", pictures, extension=".gif", duration=1000.0 / fps, loop=0)
    path.write_bytes(data)
    return len(pictures)


def _frames(
    policy: Policy,
    task: Task,
    episodes: int,
    seed: int,
    deterministic: bool,
    report: Callable[[], object],
) -> Iterator[Frame]:
    steps = stepped(policy, task, task.reset(seed=seed), deterministic)
    first = None
    while episodes:
        frame = _frame(task)
        first = frame.shape if first is None else first
        if frame.shape != first:
            raise UnsupportedEnvironment(
                f"{task.env_id} draws pictures of {first} and of {frame.shape}; "
                "a film needs one size"
            )
        yield frame
        report()
        episodes -= int(next(steps).ended.sum())


def _frame(task: Task) -> Frame:
    """Render a frame [H, W, 3] of the only copy."""
    try:
        frames = task.envs.render()
    except NotImplementedError:
        frames = None
    except Exception as error:  # no OpenGL, a missing package, or whatever the task raises
        hint = "; without a display, set MUJOCO_GL=egl" if "OpenGL" in str(error) else ""
        raise UnsupportedEnvironment(
            f"{task.env_id}: {type(error).__name__}: {error}{hint}"
        ) from error
    if not frames or frames[0] is None:
        raise UnsupportedEnvironment(f"{task.env_id} draws no pictures (render mode rgb_array)")
    return np.asarray(frames[0], np.uint8)
