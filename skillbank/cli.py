"""The command line: parse, call the library, print. Heavy modules are imported only when needed."""

import shlex
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import gymnasium

from skillbank import __version__
from skillbank.cli_bank import BANK_COMMANDS
from skillbank.cli_compose import compose_command
from skillbank.cli_options import (
    FilePath,
    Function,
    Steps,
    bank_option,
    deterministic_option,
    env_option,
    json_option,
    named,
    open_bank,
    seed_option,
)
from skillbank.cli_printing import print_evaluation, print_files, print_json, roams, say
from skillbank.cli_reproduce import reproduce
from skillbank.cli_settings import with_option
from skillbank.cli_signals import ignore_signals, interrupt_on_signals
from skillbank.config import bare_name
from skillbank.doctor import cores
from skillbank.errors import Interrupted, SkillbankError, did_you_mean
from skillbank.names import finetuned_name, pretrained_name, snake_case

if TYPE_CHECKING:
    from skillbank.cli_settings import Config
    from skillbank.cli_training import Run
    from skillbank.evaluation import Evaluation
    from skillbank.skill import Skill

HALLWAY = "skillbank/QuadrupedHallwayNarrow-v0"
RUN = "skillbank/QuadrupedRun-v0"
TASKS = "Tasks of skillbank: {}.".format(
    ", ".join(bare_name(env_id) for env_id in gymnasium.registry if env_id.startswith("skillbank/"))
)


class Commands(click.Group):
    """A group that reports a user's mistake as one message, with the error's exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Store the words of the command, for the message that says how to resume it."""
        ctx.meta["words"] = list(args)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or fail with a list of the existing ones."""
        name, known = args[0], self.list_commands(ctx)
        if not name.startswith("-") and name not in known:
            ctx.fail(
                f"no command '{name}'.{did_you_mean(name, known)} There is: {', '.join(known)}"
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; convert errors to a message and an exit code."""
        try:
            return super().invoke(ctx)
        except Interrupted as error:
            _end(str(error), error.exit_code)
        except SkillbankError as error:
            _fail("\n".join([str(error), *getattr(error, "__notes__", ())]), error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            _end("interrupted", Interrupted.exit_code)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            place = f"{error.filename}: " if error.filename else ""
            _fail(f"{place}{error.strerror or error}", SkillbankError.exit_code)


def main() -> None:
    """Entry point of the ``skillbank`` command."""
    interrupt_on_signals()
    warnings.showwarning = _show_warning
    try:
        commands(prog_name="skillbank")
    finally:
        ignore_signals()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\n"  # keeps click from rewrapping the lines
    "skillbank finetune --skill run_anywhere   fine-tune the shipped skill in a hallway\n"
    "skillbank pretrain                        train a skill of your own from scratch",
)
@click.version_option(__version__, prog_name="skillbank")
def commands() -> None:
    """Pretrain, store, fine-tune and compose maximum-entropy motor skills."""


commands.add_command(compose_command)
commands.add_command(reproduce)
for command in BANK_COMMANDS:
    commands.add_command(command)


# ------------------------------------------------------------------------------- options


def _options(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options as one decorator, shown in the order given."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_skill_option = click.option(
    "--skill", required=True, metavar="NAME", help="A skill of the bank, or a skill file (.h5)."
)


def _episodes_option(default: int) -> Callable[[Function], Function]:
    return click.option(
        "--episodes",
        type=click.IntRange(1, 100_000),
        default=default,
        show_default=True,
        help="Number of complete episodes to evaluate.",
    )


_training_options = _options(
    click.option("--as", "name", metavar="NAME", help="Name of the new skill."),
    seed_option,
    click.option(
        "--steps",
        type=Steps(1),
        help="Environment steps, summed over all copies, such as 2e5. The recipe's schedule is "
        "scaled in proportion, and learning starts after at most a quarter of the steps; --set "
        "takes precedence. With --resume the original schedule is kept.",
    ),
    click.option(
        "--preset",
        type=click.Choice(["default", "paper"]),
        default="default",
        show_default=True,
        help="Our settings for the task, or the constants of the paper's appendix D.1 (slow).",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change a field of the configuration; may be repeated. '--set help' lists all fields, "
        "with their values in this recipe and their meaning.",
    ),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ..."),
    click.option(
        "--threads",
        type=click.IntRange(1, 3),
        default=min(3, cores()),
        show_default="one per core, at most 3",
        help="Run simulation, critics and sampling network in parallel; results do not change.",
    ),
    _episodes_option(50),
    bank_option,
    click.option(
        "--out",
        type=FilePath(),
        metavar="FOLDER",
        help="Folder for checkpoint, logs and pictures. [default: runs/NAME; then NAME_2, ...]",
    ),
    click.option("--resume", is_flag=True, help="Resume a stopped training from its checkpoint."),
    json_option,
)


# ------------------------------------------------------------------------------ learning


@commands.command(epilog=TASKS)
@env_option(RUN, "QuadrupedRun")
@with_option
@_training_options
@click.pass_context
def pretrain(
    ctx: click.Context,
    /,
    name: str | None,
    preset: Any,
    steps: int | None,
    settings: tuple[str, ...],
    as_json: bool,
    **chosen: Any,  # a field of Run each
) -> None:
    """Train one broad skill from scratch and save it in the bank.

    Without any option: `run_anywhere`, a quadruped that runs in every direction.
    """
    from skillbank import cli_training, config
    from skillbank.cli_settings import settings_help

    env_id = chosen["env_id"]
    if "help" in settings:
        from skillbank.pretraining import for_one_action
        from skillbank.task import Task

        planned = config.recipe(env_id, preset)
        if Task(env_id, 1, **chosen["env_kwargs"]).action_size == 1:
            planned = for_one_action(planned)
        click.echo(settings_help(planned))
        return
    name = pretrained_name(env_id) if name is None else name
    run = ctx.with_resource(cli_training.Run.prepared(name, _again(ctx), **chosen))
    recipe = _planned(config.recipe(env_id, preset), run, steps, settings)
    run.set_up()
    run.announce(recipe)
    from skillbank.pretraining import pretrain as learn

    reference, skill, after, seconds = run.complete(partial(learn, env_id, recipe))
    pictures = run.draw(reference, skill, {"": after} if after else {})
    if as_json:
        print_json(_training_result(reference, skill, seconds, run.folder, pictures, None, after))
        return
    click.echo(f"{reference}: {_lineup(skill, seconds)}")
    if after:
        print_evaluation("", after)
    print_files(pictures)


@commands.command(epilog=TASKS)
@_skill_option
@env_option(HALLWAY, "QuadrupedHallwayNarrow")
@with_option
@click.option(
    "--schedule",
    type=click.Choice(["anchored", "paper"]),
    help="Fine-tune with the skill as prior, or without a prior as in the paper. "
    "[default: the task's]",
)
@_training_options
@click.pass_context
def finetune(
    ctx: click.Context,
    /,
    skill: str,
    schedule: Any,
    name: str | None,
    preset: Any,
    steps: int | None,
    settings: tuple[str, ...],
    as_json: bool,
    **chosen: Any,  # a field of Run each
) -> None:
    """Fine-tune a skill on a task, and evaluate it before and after.

    With --skill only: the quadruped's narrow hallway.
    """
    from skillbank import cli_training
    from skillbank.cli_settings import bare_reference, settings_help
    from skillbank.finetuning import check_schedule, recipe_for
    from skillbank.finetuning import finetune as learn

    env_id = chosen["env_id"]
    if "help" in settings:
        spec = open_bank(chosen["bank_folder"]).spec(named(skill))
        click.echo(settings_help(recipe_for(spec, env_id, preset, schedule)))
        return
    name = finetuned_name(bare_reference(skill), env_id) if name is None else name
    run = ctx.with_resource(cli_training.Run.prepared(name, _again(ctx), **chosen))
    recipe = recipe_for(run.bank.spec(named(skill)), env_id, preset, schedule)
    recipe = _planned(recipe, run, steps, settings)
    run.set_up()
    parent = run.bank.load(named(skill))
    check_schedule(parent, recipe)
    run.announce(recipe)
    before = run.measured(parent)
    if not as_json:
        print_evaluation("before", before)
    reference, new, after, seconds = run.complete(partial(learn, parent, env_id, recipe))
    panels = {"before": before} | ({f"after {new.spec.steps} steps": after} if after else {})
    pictures = run.draw(reference, new, panels)
    if as_json:
        print_json(_training_result(reference, new, seconds, run.folder, pictures, before, after))
        return
    ends = [found.record().mean_return for found in (before, after) if found]
    dip = min(new.spec.learning_curve, key=lambda point: point.mean_return, default=None)
    if dip is not None and dip.mean_return < min(ends):
        click.echo(f"lowest   return {dip.mean_return:.4g}, at {dip.steps} steps of training")
    if after:
        print_evaluation("after", after)
    click.echo(f"{reference}: {_lineup(new, seconds)}")
    print_files(pictures)


# ------------------------------------------------------------------------------- looking


@commands.command()
@_skill_option
@env_option(None, "what the skill was trained on")
@with_option
@_episodes_option(100)
@seed_option
@deterministic_option
@click.option("--nominal-start", is_flag=True, help="Start every episode from the same pose.")
@bank_option
@click.option(
    "--out",
    type=FilePath(),
    metavar="FOLDER",
    help="Folder for the picture. [default: runs/evaluate/SKILL/TASK]",
)
@json_option
def evaluate(
    skill: str,
    env_id: str | None,
    env_kwargs: dict[str, Any],
    episodes: int,
    seed: int,
    deterministic: bool,
    nominal_start: bool,
    bank_folder: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Evaluate a skill over complete episodes, and draw its paths."""
    from skillbank import cli_training
    from skillbank.cli_progress import counting
    from skillbank.cli_settings import bare_reference
    from skillbank.evaluation import evaluate as measure
    from skillbank.evaluation import task_of

    chosen = open_bank(bank_folder).load(named(skill))
    task, made = task_of(chosen, env_id, env_kwargs)
    with counting(episodes, say) as report:
        result = measure(
            chosen,
            env_id,
            episodes=episodes,
            seed=seed,
            deterministic=deterministic,
            nominal_start=nominal_start,
            report=report,
            env_kwargs=env_kwargs,
        )
    folder = out or Path("runs", "evaluate", bare_reference(skill), snake_case(bare_name(task)))
    pictures = cli_training.draw_evaluations(chosen, task, {"": result}, folder, made)
    if as_json:
        sectors = {"sectors": result.sectors.tolist()} if roams(result) else {}
        print_json(
            {"skill": skill} | result.record().model_dump() | sectors | {"pictures": pictures}
        )
        return
    print_evaluation("", result)
    print_files(pictures)
    if chosen.spec.reward:
        own = f"the return above is of {bare_name(task)}'s own reward"
        say(f"note: {own}; this skill is for {chosen.spec.reward}")


@commands.command()
@_skill_option
@env_option(None, "what the skill was trained on")
@with_option
@click.option(
    "--out",
    type=FilePath(dir_okay=False),
    metavar="FILE",
    help="The film, .mp4 or .gif. [default: runs/play/SKILL/TASK.mp4]",
)
@click.option("--episodes", type=click.IntRange(1, 1000), default=1, show_default=True)
@seed_option
@deterministic_option
@bank_option
def play(
    skill: str,
    env_id: str | None,
    env_kwargs: dict[str, Any],
    out: Path | None,
    episodes: int,
    seed: int,
    deterministic: bool,
    bank_folder: Path | None,
) -> None:
    """Record a film of a skill."""
    from tqdm import tqdm

    from skillbank.cli_settings import bare_reference
    from skillbank.film import film

    chosen = open_bank(bank_folder).load(named(skill))
    shown = f"{snake_case(bare_name(env_id or chosen.spec.env_id))}.mp4"
    path = out or Path("runs", "play", bare_reference(skill), shown)
    with tqdm(unit=" pictures", dynamic_ncols=True, disable=None, leave=False) as bar:
        frames = film(
            chosen,
            env_id,
            path,
            episodes=episodes,
            seed=seed,
            deterministic=deterministic,
            report=bar.update,
            env_kwargs=env_kwargs,
        )
    click.echo(f"{path}: {frames} pictures")


@commands.command()
@bank_option
@json_option
def doctor(bank_folder: Path | None, as_json: bool) -> None:
    """Check the installation, and report known problems."""
    from skillbank.doctor import examine

    checks = examine(open_bank(bank_folder, new=True).folder)
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        for check in checks:
            click.echo(
                f"{'ok ' if check.problem is None else 'BAD'} {check.name:<12} {check.found}"
            )
            if check.problem:
                click.echo(f"    {'':<12} {check.problem}")
    if any(check.problem for check in checks):
        click.get_current_context().exit(SkillbankError.exit_code)


# ------------------------------------------------------------------------ shared functions


def _again(ctx: click.Context) -> str:
    """The user's command, with ``--resume`` added."""
    words = ctx.find_root().meta["words"]
    return shlex.join(["skillbank", *words, *(() if "--resume" in words else ("--resume",))])


def _planned(recipe: "Config", run: "Run", steps: int | None, settings: Sequence[str]) -> "Config":
    """Apply ``--steps``, the schedule of a training to resume, and ``--set`` to a recipe."""
    from skillbank.cli_settings import as_begun, configured
    from skillbank.config import shortened

    if run.resume:
        from skillbank.checkpoint import begun_with

        return configured(recipe, (*as_begun(recipe, begun_with(run.checkpoint), steps), *settings))
    return configured(recipe if steps is None else shortened(recipe, steps), settings)


def _lineup(skill: "Skill", seconds: float) -> str:
    from skillbank.cli_progress import duration

    spec = skill.spec
    return f"{spec.steps} steps, {spec.updates} updates, {duration(seconds)} of training"


def _training_result(
    reference: str,
    skill: "Skill",
    seconds: float,
    folder: Path,
    pictures: Sequence[str],
    before: "Evaluation | None",
    after: "Evaluation | None",
) -> dict[str, Any]:
    spec = skill.spec
    return {
        "skill": reference,
        "content_hash": skill.content_hash,
        "steps": spec.steps,
        "updates": spec.updates,
        "seconds": round(seconds, 3),
        "before": None if before is None else before.record().model_dump(),
        "lowest": min((point.mean_return for point in spec.learning_curve), default=None),
        "after": None if after is None else after.record().model_dump(),
        "folder": str(folder),
        "pictures": list(pictures),
    }


def _fail(message: str, code: int) -> NoReturn:
    _end(f"error: {message}", code)


def _end(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    click.get_current_context().exit(code)


def _show_warning(message: Warning | str, *_rest: Any, **_named: Any) -> None:
    say(f"warning: {message}")
