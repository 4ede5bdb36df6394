"""Interpreting the options of a training: names, tasks and configurations."""

import inspect
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError

from skillbank.config import PLANNED, Architecture, Learning
from skillbank.errors import SkillbankError, did_you_mean, raised_at
from skillbank.spec import OF_GYMNASIUM

_PYTHON = {"True": "true", "False": "false", "None": "null"}

Config = TypeVar("Config", bound=Learning)


def bare_reference(skill: str) -> str:
    """A name for what is made of a skill such as ``run_anywhere@2`` or ``a folder/my skill.h5``."""
    name = Path(skill).name.removesuffix(".h5").replace("@", "_v")
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip("_.-") or "skill"


def imported(_ctx: click.Context, option: click.Parameter, env_id: str | None) -> str | None:
    """Import the module of ``module:Id-v0``, which registers the task; return the id.

    Those that the variable ``SKILLBANK_TASKS`` names, separated by commas, are imported first. Only
    the user names a module, never a file. ``module:`` without an id stands for the skill's own
    task, if the command has a skill.
    """
    for module in filter(None, os.environ.get("SKILLBANK_TASKS", "").split(",")):
        _import(module.strip(), " of SKILLBANK_TASKS")
    if env_id is None or ":" not in env_id:
        return env_id
    module, _, bare = env_id.partition(":")
    if module.endswith(".py") or "/" in module:
        stem = Path(module).name.removesuffix(".py")
        raise click.BadParameter(
            f"'{module}' is a file; from its folder, give its module: {stem}:{bare}"
        )
    _import(module)
    if not bare and option.default is not None:
        raise click.BadParameter(f"name the task too: {module}:ID")
    return bare or None


def _import(module: str, source: str = "") -> None:
    sys.path.insert(0, "")  # a console script does not have the current folder on its path
    try:
        import_module(module)
    except Exception as error:  # whatever the user's own code raises
        raise click.BadParameter(f"cannot import '{module}'{source}: {_told(error)}") from error


def made_with(
    _ctx: click.Context, _option: click.Parameter, settings: Sequence[str]
) -> dict[str, Any]:
    """Parse keywords for an environment, each ``key=value``, with values as for ``--set``."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"'--with {setting}' should be '--with key=value'")
        if key in ("seed", "episodes", "deterministic", "nominal_start"):
            raise click.BadParameter(f"'{key}' is an option: --{key.replace('_', '-')}")
        if key in {"skill", "path", *OF_GYMNASIUM}:
            raise click.BadParameter(f"'{key}' is not for the task: it says how the task is run")
        plain = _value(value)
        listed = isinstance(plain, str) and "," in plain
        found[key] = [_value(part) for part in value.split(",") if part] if listed else plain
    return found


with_option = click.option(
    "--with",
    "env_kwargs",
    multiple=True,
    callback=made_with,
    metavar="KEY=VALUE",
    help="Keyword of the task, such as direction=1.57 or goals=left,up; may be repeated.",
)


def _told(error: Exception) -> str:
    """Format an import error as ``file:line: NameError: ...``; no location if it has none."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {kind}: {error.msg}"
    place = raised_at(error)
    return f"{place}{kind}: {error}" if place else str(error)


def as_begun(config: Learning, begun: Mapping[str, Any], steps: int | None) -> list[str]:
    """Settings of a resumed training: fields that depend on ``--steps`` keep their values.

    Args:
        config: The recipe.
        begun: The training's configuration, from the checkpoint.
        steps: The new total number of steps; None to keep it.
    """
    planned = {name: begun[name] for name in PLANNED if name in begun and hasattr(config, name)}
    if steps is not None:
        planned["total_steps"] = steps
    return [f"{name}={json.dumps(value)}" for name, value in planned.items()]


def configured(config: Config, settings: Sequence[str]) -> Config:
    """A configuration with some of its fields changed.

    Args:
        config: The recipe.
        settings: Each ``key=value``; a nested field is ``architecture.critics=1``. Values are
            written as in JSON, or as ``True``, ``None`` and ``32,32``; a bare word is a string.

    Raises:
        SkillbankError: An unknown key, or an invalid value.
    """
    document = config.model_dump(mode="json")
    known = config.flat()
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip()
        if not equals:
            raise SkillbankError(f"'--set {setting}' should be '--set key=value'")
        if key not in known:
            hint = did_you_mean(key, known)
            raise SkillbankError(f"no setting '{key}'.{hint} There is: {', '.join(known)}")
        *parts, last = key.split(".")
        inner = document
        for part in parts:
            inner = inner[part]
        found = _value(value.strip())
        listed = isinstance(inner[last], list) and not isinstance(found, list)
        inner[last] = [found] if listed else found
    try:
        return type(config).model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise SkillbankError("\n".join(map(_complaint, error.errors()))) from error


def settings_help(config: Learning) -> str:
    """One line per setting: its value in this recipe, and its meaning with its choices."""
    meanings = _meanings(type(config)) | {
        f"architecture.{name}": text for name, text in _meanings(Architecture).items()
    }
    return "\n".join(
        f"{key}={json.dumps(value, separators=(',', ':'))}  # {meanings[key]}"
        for key, value in config.flat().items()
    )


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Meaning of each field: the comment on its line and right below it; and its choices."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if not issubclass(part, BaseModel) or part is BaseModel:
            continue
        last = None
        for line in inspect.getsource(part).splitlines():
            code, _, comment = line.strip().partition("# ")
            name = code.partition(":")[0]
            if name in part.model_fields:
                last, found[name] = name, comment
            elif last is not None and comment and not code:
                found[last] += f" {comment}"
            else:
                last = None
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is Literal:
            found[name] += f"; one of {', '.join(get_args(field.annotation))}"
    return found


def _complaint(problem: Mapping[str, Any]) -> str:
    """Format one of pydantic's errors."""
    if not problem["loc"]:  # from our validators of several fields, which have their own message
        return str(problem["ctx"]["error"])
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}, got {_shown(problem['input'])}"


def _value(text: str) -> Any:
    for written in (_PYTHON.get(text, text), f"[{text}]" if "," in text else text):
        try:
            return json.loads(written)
        except json.JSONDecodeError:
            continue
    return text


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
