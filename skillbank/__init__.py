"""skillbank: keep, fine-tune and combine maximum-entropy motor skills.

Importing this package is cheap: torch, mujoco and dm_control are imported on first use. The import
registers the environments, so that ``gymnasium.make("skillbank/QuadrupedRun-v0")`` works.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skillbank.errors import (
    IncompatibleSkill,
    Interrupted,
    SkillbankError,
    SkillFileError,
    SkillNotFound,
    UnsupportedEnvironment,
)

if TYPE_CHECKING:
    from skillbank import compose
    from skillbank.bank import Bank
    from skillbank.config import FinetuneConfig, PretrainConfig, recipe, shortened
    from skillbank.evaluation import Evaluation, evaluate
    from skillbank.finetuning import finetune, recipe_for
    from skillbank.pretraining import pretrain
    from skillbank.skill import Skill
    from skillbank.training import Hooks

__version__ = "0.1.0"

_HOME = {
    "Bank": "skillbank.bank",
    "Evaluation": "skillbank.evaluation",
    "FinetuneConfig": "skillbank.config",
    "Hooks": "skillbank.training",
    "PretrainConfig": "skillbank.config",
    "Skill": "skillbank.skill",
    "evaluate": "skillbank.evaluation",
    "finetune": "skillbank.finetuning",
    "pretrain": "skillbank.pretraining",
    "recipe": "skillbank.config",
    "recipe_for": "skillbank.finetuning",
    "shortened": "skillbank.config",
}

__all__ = [
    "Bank",
    "Evaluation",
    "FinetuneConfig",
    "Hooks",
    "IncompatibleSkill",
    "Interrupted",
    "PretrainConfig",
    "Skill",
    "SkillFileError",
    "SkillNotFound",
    "SkillbankError",
    "UnsupportedEnvironment",
    "__version__",
    "compose",
    "evaluate",
    "finetune",
    "pretrain",
    "recipe",
    "recipe_for",
    "shortened",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module the first time it is used (PEP 562)."""
    if name == "compose":
        return import_module("skillbank.compose")
    if name not in _HOME:
        raise AttributeError(f"module 'skillbank' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)


import_module("skillbank.envs").register()
