"""Filming a skill at work, through the environment's own pictures."""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from skillbank.errors import SkillbankError, StorageError, UnsupportedEnvironment
from skillbank.evaluation import check_ending, task_of
from skillbank.skill import Skill
from skillbank.task import Task

Frame = NDArray[np.uint8]
DEFAULT_FPS = 20


def film(
    skill: Skill,
    env_id: str | None,
    path: Path,
    *,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = False,
    report: Callable[[], object] = lambda: None,
    env_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> int:
    """Write a film of whole episodes, in real time where the task says how fast that is.

    There is one picture before each step, so that where an episode ends is not in it.

    Args:
        skill: Who plays.
        env_id: A Gymnasium id, or the bare name of one of skillbank's tasks; None: the skill's own,
            made with the keywords that the skill remembers.
        path: ``.mp4`` or ``.gif``.
        episodes: How many, one after the other.
        seed: Of the starts, and of the skill's random actions.
        deterministic: Take each state's best action instead of a random one.
        report: Called after each picture.
        env_kwargs: For the environment.
        kwargs: The same, one by one.

    Returns:
        The number of pictures in it.

    Raises:
        SkillbankError: The suffix is neither, or ``episodes`` or ``seed`` make no sense.
        UnsupportedEnvironment: Unknown id, or the task cannot be drawn here.
        IncompatibleSkill: The skill does not fit the task.
        StorageError: The film cannot be written.
    """
    mp4 = path.suffix.lower() == ".mp4"
    if not mp4 and path.suffix.lower() != ".gif":
        raise SkillbankError(f"a film is .mp4 or .gif, not '{path.name}'")
    if episodes < 1 or seed < 0:
        raise SkillbankError(f"episodes must be >= 1 and seed >= 0, got {episodes} and {seed}")
    env_id, kwargs = task_of(skill, env_id, {**(env_kwargs or {}), **kwargs})
    task = Task(env_id, 1, render_mode="rgb_array", **kwargs)
    fps = float(task.envs.metadata.get("render_fps", DEFAULT_FPS))
    try:
        policy = skill.fitted_to(task).reseeded(seed)
        frames = _frames(policy, task, episodes, seed, deterministic, report)
        # Whatever cannot be drawn is known with the first picture, before a file is made.
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
    skill: Skill,
    task: Task,
    episodes: int,
    seed: int,
    deterministic: bool,
    report: Callable[[], object],
) -> Iterator[Frame]:
    obs = task.reset(seed=seed)
    steps = 0
    while episodes:
        check_ending(task, steps)
        yield _frame(task)
        report()
        action, _ = skill.predict(obs.numpy(), deterministic=deterministic)
        step = task.step(action, scaled=False)
        obs = step.obs
        steps = 0 if step.ended.any() else steps + 1
        episodes -= int(step.ended.sum())


def _frame(task: Task) -> Frame:
    """The picture [H, W, 3] of the only copy."""
    try:
        frames = task.envs.render()
    except NotImplementedError:
        frames = None
    except (RuntimeError, gymnasium.error.Error) as error:  # no OpenGL, or a missing package
        raise UnsupportedEnvironment(f"{task.env_id}: {error}") from error
    if not frames or frames[0] is None:
        raise UnsupportedEnvironment(f"{task.env_id} draws no pictures (render mode rgb_array)")
    return np.asarray(frames[0], np.uint8)
