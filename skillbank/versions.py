"""The package versions that are recorded in a skill, and a warning where MuJoCo's differs."""

import functools
import re
from importlib.metadata import version
from typing import TYPE_CHECKING

from skillbank.errors import warn

if TYPE_CHECKING:
    from skillbank.spec import SkillSpec

_RELEASE = r"[0-9][0-9A-Za-z.]{0,31}"
_installed = functools.cache(version)  # of a distribution, without importing it


def versions() -> dict[str, str]:
    """Versions of the packages that training results depend on, by distribution name."""
    return {name: version(name) for name in ("skillbank", "torch", "mujoco", "gymnasium", "numpy")}


def warn_of_another_mujoco(skill: object, spec: "SkillSpec") -> None:
    """Warn the caller of a function that loads a skill, if physics may differ from the skill's.

    Args:
        skill: The reference or the path that was loaded.
        spec: The skill's metadata.
    """
    made_with, here = spec.versions.get("mujoco"), _installed("mujoco")
    without_physics = spec.env_id.startswith("skillbank/") and spec.model_hash is None
    if made_with is None or made_with == here or without_physics:
        return
    origin, advice = "another version of MuJoCo", ""
    if re.fullmatch(_RELEASE, made_with):  # a command must hold no other text of a file
        origin = f"MuJoCo {made_with}"
        advice = f"; 'pip install mujoco=={made_with}' installs the original"
    warn(
        f"'{skill}' was made with {origin}, but {here} is installed: physics differ between "
        f"versions{advice}",
    )
