"""Names of skills, where none is given: after the task, or after another skill."""

import re

from skillbank.config import bare_name
from skillbank.spec import MAX_NAME

# Those of the shipped skills, by task.
_SHIPPED = {"QuadrupedRun": "run_anywhere", "PointMassRun": "point_run_anywhere"}


def pretrained_name(env_id: str) -> str:
    """The name of a skill pretrained on a task: ``run_anywhere``, or for example ``ant_v5``."""
    bare = bare_name(env_id)
    return (_SHIPPED.get(bare) or snake_case(bare) or "skill")[:MAX_NAME]


def finetuned_name(skill: str, env_id: str) -> str:
    """The name of a skill fine-tuned on a task: ``run_anywhere.quadruped_hallway_narrow``."""
    return suffixed(skill, f".{snake_case(bare_name(env_id))}")


def suffixed(name: str, suffix: str) -> str:
    """``name`` and ``suffix``; a long name is cut short."""
    return name[: MAX_NAME - len(suffix)] + suffix


def snake_case(text: str) -> str:
    """Convert ``PointMassRun`` to ``point_mass_run``, which is safe as a file name."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
