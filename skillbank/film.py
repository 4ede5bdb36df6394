"""Filming a skill at work, through the environment's own pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from skillbank.errors import SkillbankError, StorageError, UnsupportedEnvironment
from skillbank.skill import Skill
from skillbank.task import Task

SUFFIXES = (".mp4", ".gif")
DEFAULT_FPS = 20


def film(
    skill: Skill,
    env_id: str,
    path: Path,
    *,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = False,
    **kwargs: Any,
) -> int:
    """Write a film of whole episodes, in real time where the task says how fast that is.

    Args:
        skill: Who plays.
        env_id: A Gymnasium id.
        path: ``.mp4`` or ``.gif``.
        episodes: How many, one after the other.
        seed: Of the starts.
        deterministic: Take each state's best action instead of a random one.
        kwargs: For the environment.

    Returns:
        The number of pictures in it.

    Raises:
        SkillbankError: The suffix is neither, or ``episodes`` or ``seed`` make no sense.
        UnsupportedEnvironment: Unknown id, or the task cannot be drawn here.
        IncompatibleSkill: The skill does not fit the task.
        StorageError: The film cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise SkillbankError(f"a film is one of {', '.join(SUFFIXES)}, not '{path.name}'")
    if episodes < 1 or seed < 0:
        raise SkillbankError(f"episodes must be >= 1 and seed >= 0, got {episodes} and {seed}")
    import imageio.v2 as imageio

    task = Task(env_id, 1, render_mode="rgb_array", **kwargs)
    how: dict[str, Any] = {"macro_block_size": 2} if path.suffix.lower() == ".mp4" else {"loop": 0}
    fps = task.envs.metadata.get("render_fps", DEFAULT_FPS)
    try:
        policy = skill.fitted_to(task)
        frames = _frames(policy, task, episodes, seed, deterministic)
        first = next(frames)  # whatever cannot be drawn is known before a file is made
        path.parent.mkdir(parents=True, exist_ok=True)
        count = 1
        writer: Any
        with imageio.get_writer(path, fps=fps, **how) as writer:
            writer.append_data(first)
            for frame in frames:
                writer.append_data(frame)
                count += 1
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        task.close()
    return count


def _frames(
    skill: Skill, task: Task, episodes: int, seed: int, deterministic: bool
) -> Iterator[NDArray[np.uint8]]:
    obs = task.reset(seed=seed)
    while episodes:
        yield _frame(task)
        action, _ = skill.predict(obs.numpy(), deterministic=deterministic)
        step = task.step(action, scaled=False)
        obs = step.obs
        episodes -= int(step.ended.sum())


def _frame(task: Task) -> NDArray[np.uint8]:
    """The picture [H, W, 3] of the only copy."""
    try:
        frames = task.envs.render()
    except (RuntimeError, gymnasium.error.Error) as error:  # no OpenGL, or a missing package
        raise UnsupportedEnvironment(f"{task.env_id}: {error}") from error
    if not frames or frames[0] is None:
        raise UnsupportedEnvironment(f"{task.env_id} draws no pictures (render mode rgb_array)")
    return np.asarray(frames[0], np.uint8)
