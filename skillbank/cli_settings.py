"""What the options of a training mean: names and configurations."""

import difflib
import json
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from skillbank.config import FinetuneConfig, Learning, bare_name, shortened
from skillbank.errors import SkillbankError
from skillbank.spec import Name

# The skills that skillbank itself ships; any other task gives its own name.
_NAMES = {"QuadrupedRun": "run_anywhere", "PointMassRun": "point_run_anywhere"}

# What a number of steps decides.
_PLANNED = (
    "total_steps",
    "learning_starts",
    "anneal_steps",
    "shrink_start",
    "shrink_steps",
    "n_step_until",
    "frozen_updates",
)

Config = TypeVar("Config", bound=Learning)


def pretrained_name(env_id: str) -> str:
    """The name of a skill pretrained on a task: ``run_anywhere``, or for example ``ant_v5``."""
    bare = bare_name(env_id)
    return _NAMES.get(bare) or snake_case(bare)


def finetuned_name(skill: str, env_id: str) -> str:
    """The name of a skill fine-tuned on a task: ``run_anywhere.quadruped_hallway_narrow``."""
    return f"{skill}.{snake_case(bare_name(env_id))}"


def bare_reference(skill: str) -> str:
    """A name that files can have: of ``run_anywhere@2`` or ``some/folder/run_anywhere.h5``."""
    return Path(skill).name.removesuffix(".h5").replace("@", "_v").replace(":", "_")


def imported(_ctx: click.Context, _option: click.Parameter, env_id: str | None) -> str | None:
    """Import the module of ``module:Id-v0``, which registers the task. Only a user may ask so."""
    if env_id is None or ":" not in env_id:
        return env_id
    module, _, bare = env_id.partition(":")
    sys.path.insert(0, "")  # a console script does not see the present folder by itself
    try:
        import_module(module)
    except Exception as error:  # whatever the user's own code raises
        raise click.BadParameter(f"cannot import '{module}': {_told(error)}") from error
    return bare


def _told(error: Exception) -> str:
    """``file:line: NameError: ...`` of what went wrong in a module; the place, if it is in one."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {kind}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is here
    theirs = [frame for frame in frames if "importlib" not in frame.filename]
    if not theirs:
        return str(error)
    return f"{theirs[-1].filename}:{theirs[-1].lineno}: {kind}: {error}"


def checked_name(name: str) -> str:
    """A name that a skill can have.

    Raises:
        SkillbankError: It cannot.
    """
    try:
        return TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise SkillbankError(
            f"'{name}' cannot be the name of a skill: it takes letters, digits, '_', '-' and '.', "
            "begins with a letter or a digit, and has at most 128 of them"
        ) from error


def in_steps(config: Config, steps: int) -> Config:
    """The recipe in so many steps; of few updates, the sampler is frozen for a quarter at most."""
    config = shortened(config, steps)
    if isinstance(config, FinetuneConfig):
        updates = (steps - config.learning_starts) // config.steps_per_update
        frozen = min(config.frozen_updates, updates // 4)
        config = config.model_copy(update={"frozen_updates": frozen})
    return config


def as_begun(config: Learning, begun: Mapping[str, Any], steps: int | None) -> list[str]:
    """Settings of a resumed training: what follows from ``--steps`` is as it was at its start.

    Args:
        config: The recipe.
        begun: What the checkpoint says of the training's configuration.
        steps: Those that it is to have now; None: as many as before.
    """
    planned = {name: begun[name] for name in _PLANNED if name in begun and hasattr(config, name)}
    if steps is not None:
        planned["total_steps"] = steps
    return [f"{name}={json.dumps(value)}" for name, value in planned.items()]


def configured(config: Config, settings: Sequence[str]) -> Config:
    """A configuration with some of its fields changed.

    Args:
        config: The recipe.
        settings: Each ``key=value``; a field of a part is ``architecture.critics=1``. Values are
            written as in JSON; a bare word is a string.

    Raises:
        SkillbankError: An unknown key, or a value that cannot be.
    """
    document = config.model_dump(mode="json")
    known = _flat_keys(document)
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip()
        if not equals:
            raise SkillbankError(f"'--set {setting}' should be '--set key=value'")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise SkillbankError(f"no setting '{key}'.{hint} There is: {', '.join(known)}")
        *parts, last = key.split(".")
        inner = document
        for part in parts:
            inner = inner[part]
        inner[last] = _value(value.strip())
    try:
        return type(config).model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise SkillbankError("\n".join(map(_wrong, error.errors()))) from error


def _flat_keys(document: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in document.items():
        keys += _flat_keys(value, f"{key}.") if isinstance(value, dict) else [prefix + key]
    return keys


def _value(text: str) -> Any:
    """As in JSON, or as in Python (True, None), or a list without its brackets (32,32)."""
    python = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    for written in (python, f"[{python}]" if "," in text else python):
        with suppress(json.JSONDecodeError):
            return json.loads(written)
    return text


def _wrong(problem: ErrorDetails) -> str:
    """One thing that is wrong with a configuration."""
    text = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # with the whole of it
        return text
    return f"{'.'.join(map(str, problem['loc']))}: {text}, got {_shown(problem['input'])}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def snake_case(text: str) -> str:
    """``point_mass_run`` of ``PointMassRun``; a name that files can have."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
