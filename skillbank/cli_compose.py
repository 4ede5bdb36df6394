"""``skillbank compose``: compose skills, certify the loss, correct it, and distill the result."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from skillbank.allocator import keep_freed_blocks
from skillbank.bank import Bank
from skillbank.bank_folder import checked_name
from skillbank.cli_folders import check_writable, held, numbered, saved_at
from skillbank.cli_options import (
    FilePath,
    Steps,
    bank_option,
    env_option,
    json_option,
    named,
    seed_option,
)
from skillbank.cli_printing import counted, print_json, say
from skillbank.cli_progress import Watch
from skillbank.cli_settings import bare_reference, with_option
from skillbank.cli_signals import stop_on_signals
from skillbank.errors import IncompatibleSkill, Interrupted, SkillbankError

if TYPE_CHECKING:
    from skillbank.compose import Certificate, Composed
    from skillbank.compose.gathering import Gathering
    from skillbank.skill import Skill
    from skillbank.training import Hooks

Config = TypeVar("Config", bound="Gathering")

CORRECTION = "correction.npz"


@click.command("compose")
@click.argument("skills", nargs=-1, required=True, metavar="SKILL...")
@click.option("--as", "name", metavar="NAME", help="Name of the new skill.")
@click.option(
    "--how",
    type=click.Choice(["mean", "sum", "or"]),
    default="mean",
    show_default=True,
    help="Good at all tasks (mean of rewards), weighted sum of rewards, or good at any task.",
)
@click.option(
    "--weight",
    "weights",
    type=float,
    multiple=True,
    help="One per skill, in the same order; may be negative with --how sum. [default: equal]",
)
@click.option(
    "--turn",
    "degrees",
    type=float,
    multiple=True,
    help="Turn each skill's direction counter-clockwise by this many degrees; one per skill.",
)
@click.option(
    "--shared-goals",
    is_flag=True,
    help="With --how or: the rewards differ only on entering goals that all skills share.",
)
@click.option(
    "--correct",
    is_flag=True,
    help="Learn a correction that makes the composition optimal, before distilling.",
)
@click.option(
    "--correction",
    type=FilePath(exists=True, dir_okay=False),
    metavar="FILE",
    help="Use a correction learned before: correction.npz in the folder of its run.",
)
@click.option("--check", is_flag=True, help="Only report how well the skills compose.")
@env_option(None, "that of the skill that observes most")
@with_option
@click.option("--rescale", is_flag=True, help="Convert all to the first skill's temperature.")
@click.option("--steps", type=Steps(2), help="Environment steps of each training.")
@click.option(
    "--episodes",
    type=click.IntRange(1, 1000),
    default=16,
    show_default=True,
    help="Episodes for the certificate.",
)
@seed_option
@bank_option
@click.option(
    "--out",
    type=FilePath(),
    metavar="FOLDER",
    help="Folder for logs and the correction. [default: runs/NAME; then NAME_2, ...]",
)
@json_option
@click.pass_context
def compose_command(
    ctx: click.Context,
    skills: tuple[str, ...],
    name: str | None,
    how: str,
    weights: tuple[float, ...],
    degrees: tuple[float, ...],
    shared_goals: bool,
    correct: bool,
    correction: Path | None,
    check: bool,
    env_id: str | None,
    env_kwargs: dict[str, Any],
    rescale: bool,
    steps: int | None,
    episodes: int,
    seed: int,
    bank_folder: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compose several skills, and save the result as one new skill.

    First reports how well they compose. Example: `skillbank compose run_north run_east`
    """
    _check_options(check, correct, correction, shared_goals, how)
    bank = Bank(bank_folder, shipped=True)
    if not check:
        kept = _name(name, skills)
        first = out or Path("runs", kept)
        for place in (bank.folder, first):
            check_writable(place, "choose another with --bank or --out FOLDER")
    keep_freed_blocks()
    import torch

    from skillbank.training import Hooks

    torch.set_num_threads(1)
    loaded = _turned([bank.load(named(skill)) for skill in skills], degrees)
    composed = _composed(loaded, how, weights, rescale, shared_goals)
    say(f"{composed.spec.name}: reward {composed.spec.reward}")
    if correction is not None:
        from skillbank.compose import Correction

        composed = composed.with_correction(Correction.load(correction))
    where = {"env_id": env_id, "env_kwargs": env_kwargs}
    found = None
    try:
        found = _certified(composed, where, episodes, seed, Hooks())
    except IncompatibleSkill as error:  # no certificate exists, but it can still be distilled
        if check or correct:
            raise
        say(f"no certificate: {error}")
    if check:
        assert found is not None
        _print(_result(composed, found, None, None, None), as_json, found.text("--correct"))
        return

    if found is not None:
        say(found.text("--correct"))
    folder = out or numbered(first)
    with held(folder), stop_on_signals("stopping, please wait") as stop:
        path = folder / CORRECTION
        before = saved_at(path)
        try:
            if correct:
                with Watch(folder / "correction", say) as watch:
                    hooks = Hooks(watch, watch.warn, stop, path)
                    composed = _corrected(composed, where, steps, seed, hooks)
                found = _certified(composed, where, episodes, seed, Hooks(should_stop=stop))
                say(found.text("--correct"))
            with Watch(folder, say) as watch:
                hooks = Hooks(watch, should_stop=stop)
                skill = _distilled(composed, where, steps, seed, hooks, kept)
        except Interrupted as error:
            raise Interrupted(_advice(ctx, path if correct else None, before, error)) from error
        reference = bank.save(skill, kept)
    text = (
        f"{reference}: {skill.spec.steps} steps, {skill.spec.updates} updates, "
        f"made from {', '.join(skills)}"
    )
    _print(_result(composed, found, reference, skill, path if correct else None), as_json, text)


def _name(name: str | None, skills: Sequence[str]) -> str:
    """Name of the new skill: ``--as``, or the joined names of its parts, at least two."""
    if name is not None:
        return checked_name(name)
    if len(skills) == 1:
        raise click.UsageError(f"a composition of '{skills[0]}' alone needs a name: --as NAME")
    try:
        return checked_name("_".join(map(bare_reference, skills)))
    except SkillbankError as error:
        raise SkillbankError(f"{error}; name it with --as") from error


def _advice(
    ctx: click.Context, correction: Path | None, before: int | None, error: Interrupted
) -> str:
    """Say where the correction is and which command continues with it, or why it is not saved.

    ``before`` is when a correction was last saved there before this command.
    """
    if correction is None:
        return "stopped; the unfinished distillation was not saved"
    if notes := "\n".join(getattr(error, "__notes__", ())):
        return f"stopped, but {notes}"
    if saved_at(correction) == before:
        return "stopped before anything was learned; nothing was saved"
    words = [word for word in ctx.find_root().meta["words"] if word != "--correct"]
    again = shlex.join(["skillbank", *words, "--correction", str(correction)])
    return f"stopped; the correction is in {correction}; to continue with it as it is:\n  {again}"


def _check_options(
    check: bool, correct: bool, correction: Path | None, shared_goals: bool, how: str
) -> None:
    if check and correct:
        raise click.UsageError("--check learns nothing and --correct does: use only one")
    if correct and correction is not None:
        raise click.UsageError("--correct learns a correction, --correction loads one: use one")
    if shared_goals and how != "or":
        raise click.UsageError("--shared-goals needs --how or")


def _turned(skills: "list[Skill]", degrees: tuple[float, ...]) -> "list[Skill]":
    if not degrees:
        return skills
    _one_for_each(skills, degrees, "--turn")
    if not all(map(math.isfinite, degrees)):
        raise click.UsageError(f"--turn takes finite numbers of degrees, got {degrees}")
    return [s.turned(math.radians(by)) if by else s for s, by in zip(skills, degrees, strict=True)]


def _one_for_each(skills: "Sequence[Skill]", given: Sequence[float], option: str) -> None:
    if len(given) != len(skills):
        raise SkillbankError(
            f"{len(skills)} skills need {option} once each, in their order, "
            f"but it was given {counted(len(given), 'time')}"
        )


def _composed(
    skills: "Sequence[Skill]",
    how: str,
    weights: tuple[float, ...],
    rescale: bool,
    shared_goals: bool,
) -> "Composed":
    from skillbank import compose

    if weights:
        _one_for_each(skills, weights, "--weight")
    if rescale:
        alpha = skills[0].spec.temperature
        skills = [skills[0], *(skill.at_temperature(alpha) for skill in skills[1:])]
    if how == "sum":
        return compose.add(list(zip(skills, weights or (1.0,) * len(skills), strict=True)))
    if how == "or":
        return compose.any_of(skills, list(weights) or None, shared_goals=shared_goals or None)
    return compose.mean(skills, list(weights) or None)


def _certified(
    composed: "Composed", where: dict[str, Any], episodes: int, seed: int, hooks: "Hooks"
) -> "Certificate":
    say(f"running {counted(episodes, 'episode')} for the certificate")
    with Watch(None, say) as watch:
        hooks.on_progress = watch
        return composed.certificate(**where, episodes=episodes, seed=seed, hooks=hooks)


def _in_steps(config: Config, steps: int | None) -> Config:
    """The configuration with this many steps, if any; learning starts after at most a tenth."""
    if steps is None:
        return config
    start = min(config.learning_starts, max(1, steps // 10))
    return config.changed(total_steps=steps, learning_starts=start)


def _corrected(
    composed: "Composed", where: dict[str, Any], steps: int | None, seed: int, hooks: "Hooks"
) -> "Composed":
    from skillbank.compose import CorrectionConfig

    config = _in_steps(CorrectionConfig(), steps)
    say(f"learning the correction, at most {config.total_steps} steps")
    return composed.corrected(**where, config=config, seed=seed, hooks=hooks)


def _distilled(
    composed: "Composed",
    where: dict[str, Any],
    steps: int | None,
    seed: int,
    hooks: "Hooks",
    name: str,
) -> "Skill":
    from skillbank.compose import DistillConfig

    config = _in_steps(DistillConfig(), steps)
    say(f"distilling it into one skill, {config.total_steps} steps")
    return composed.distill(**where, config=config, name=name, seed=seed, hooks=hooks)


def _result(
    composed: "Composed",
    found: "Certificate | None",
    reference: str | None,
    skill: "Skill | None",
    correction: Path | None,
) -> dict[str, Any]:
    certificate = found and {
        "loss": found.loss,
        "interval": list(found.interval),
        "per_step": found.per_step,
        "overlap": None if math.isnan(found.overlap) else found.overlap,
        "corrected": found.corrected,
        "sample_size": found.sample_size,
        "text": found.text("--correct"),
    }
    return {
        "composition": composed.spec.name,
        "reward": composed.spec.reward,
        "certificate": certificate,
        "skill": reference,
        "content_hash": None if skill is None else skill.content_hash,
        "parents": list(composed.spec.parents),
        "correction": None if correction is None else str(correction),
    }


def _print(result: dict[str, Any], as_json: bool, text: str) -> None:
    if as_json:
        print_json(result)
    else:
        click.echo(text)
