"""A training on the command line: where it writes, how it is stopped, and what it leaves behind."""

import itertools
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from skillbank.allocator import keep_freed_blocks
from skillbank.bank import Bank
from skillbank.bank_folder import checked_name
from skillbank.cli_folders import check_writable, held, numbered, saved_at
from skillbank.cli_printing import counted, say
from skillbank.cli_progress import Watch, counting
from skillbank.cli_signals import StopRequest, stop_on_signals
from skillbank.config import Learning, resolve
from skillbank.errors import Interrupted, SkillbankError, StorageError

if TYPE_CHECKING:
    from skillbank.evaluation import Evaluation
    from skillbank.skill import Skill

CHECKPOINT = "checkpoint.npz"
FEW_UPDATES = 100  # with fewer a skill has hardly learned anything


class Outcome(NamedTuple):
    """Result of a finished training."""

    reference: str  # of the skill in the bank
    skill: "Skill"
    evaluation: "Evaluation | None"  # None: it failed or was interrupted
    seconds: float  # wall clock of the training, over all sessions


@dataclass(frozen=True)
class Run:
    """One training: its skill, task and folders, and the command that resumes it."""

    name: str  # of the skill
    bank: Bank
    folder: Path
    again: str  # the command that resumes it
    resume: bool
    env_id: str
    env_kwargs: dict[str, Any]
    seed: int
    device: str
    threads: int
    episodes: int  # of the evaluation at the end

    @classmethod
    @contextmanager
    def prepared(
        cls,
        name: str,
        again: str,
        *,
        bank_folder: Path | None,
        out: Path | None,
        resume: bool,
        **chosen: Any,
    ) -> "Iterator[Run]":
        """Check everything that could make a long training fail at its end, and lock its folder.

        Args:
            name: Name of the skill.
            again: The command that resumes the training.
            bank_folder: Folder of the bank; None for the user's bank.
            out: Folder for checkpoint, logs and pictures; None for ``runs/NAME``.
            resume: Resume from the checkpoint in the folder.
            **chosen: The other fields, named like the options.

        Raises:
            SkillbankError: The name is invalid; a folder cannot be written, is locked by another
                training, or holds an unfinished one; or there is no training to resume.
        """
        bank = Bank(bank_folder, shipped=True)
        first = out or Path("runs", checked_name(name))
        check_writable(bank.folder, "choose another bank with --bank FOLDER or SKILLBANK_HOME")
        check_writable(first, "choose another with --out FOLDER")
        folder = out or numbered(first, CHECKPOINT)
        if resume and not (folder / CHECKPOINT).is_file():
            own = (one for one in bank.listing() if one.name == name and not one.shipped)
            kept = ", ".join(one.reference for one in own)
            done = f"; a finished one leaves none, and the bank has {kept}" if kept else ""
            raise SkillbankError(f"no checkpoint in {first}{done}; start without --resume")
        with held(folder):
            run = cls(checked_name(name), bank, folder, again, resume, **chosen)
            if run.checkpoint.exists() and not resume:
                raise SkillbankError(
                    f"{folder} holds an unfinished training. If this "
                    f"command started it, resume it:\n  {again}\n"
                    f"or delete {run.checkpoint} to start again"
                )
            yield run

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint of a stopped training."""
        return self.folder / CHECKPOINT

    def set_up(self) -> None:
        """Set up the process for training, before torch allocates anything.

        Raises:
            SkillbankError: The seed or the device cannot be used.
        """
        keep_freed_blocks()
        import torch

        from skillbank.training import check_run

        torch.set_num_threads(self.threads)
        check_run(self.seed, self.device)

    def announce(self, config: Learning) -> None:
        """Say what will be trained.

        Raises:
            UnsupportedEnvironment: The task is unknown.
        """
        say(
            f"{self.name}: {config.total_steps} steps of {resolve(self.env_id)}, logs in "
            f"{self.folder} (Ctrl-C saves and stops)"
        )

    def complete(self, learn: "Callable[..., Skill]") -> Outcome:
        """Train, evaluate and save the skill; a signal may arrive at any moment.

        Args:
            learn: ``pretrain`` or ``finetune``, given all arguments except the shared keywords.

        Raises:
            Interrupted: A signal was received; the checkpoint, or the finished skill, is saved.
            StorageError: The finished skill cannot be saved in the bank; the message says where it
                is instead.
        """
        with stop_on_signals() as stop:
            skill, seconds = self._train(learn, stop)
            if skill.spec.updates < FEW_UPDATES:
                say(
                    f"warning: only {counted(skill.spec.updates, 'update')}: hardly anything is "
                    "learned; increase --steps"
                )
            evaluation = None
            try:
                with stop.interruptible():
                    evaluation = self._measure(skill)
            except KeyboardInterrupt:
                say("the evaluation was skipped")
            if evaluation is not None:
                skill = skill.with_spec(evaluations=(evaluation.record(),))
            reference = self._keep(skill)
            if stop.made:
                raise Interrupted(
                    f"interrupted after training; '{reference}' is in the bank. To evaluate it:\n"
                    f"  {self._to_evaluate(reference)}"
                )
        return Outcome(reference, skill, evaluation, seconds)

    def draw(self, reference: str, skill: "Skill", panels: "Mapping[str, Evaluation]") -> list[str]:
        """Draw the learning curve and the paths of the skill; return the pictures' file names.

        Raises:
            Interrupted: A signal was received; the message says where the skill is.
        """
        from skillbank import figures

        paths: list[str] = []
        curve = skill.spec.learning_curve
        try:
            if curve:
                marks = {label or "evaluation": e.mean_return for label, e in panels.items()}
                with _drawing(self.folder / "learning_curve.png", paths) as path:
                    figures.learning_curve(curve, path, title=self.name, marks=marks)
            more = draw_evaluations(skill, self.env_id, panels, self.folder, self.env_kwargs)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted while drawing; '{reference}' is in the bank") from None
        return paths + more

    def _train(self, learn: "Callable[..., Skill]", stop: StopRequest) -> "tuple[Skill, float]":
        from skillbank.training import Hooks

        before = saved_at(self.checkpoint)
        with Watch(self.folder, say) as watch:
            hooks = Hooks(
                on_progress=watch,
                on_warning=watch.warn,
                should_stop=stop,
                checkpoint=self.checkpoint,
                resume=self.resume,
            )
            try:
                skill = learn(
                    seed=self.seed,
                    name=self.name,
                    device=self.device,
                    hooks=hooks,
                    env_kwargs=self.env_kwargs,
                )
                return skill, watch.seconds
            except Interrupted as error:
                notes = "\n".join(getattr(error, "__notes__", ()))
                saved = f"stopped; {self._advice()}" if not notes else f"stopped, but {notes}"
                raise Interrupted(saved) from error
            except Exception as error:
                if saved_at(self.checkpoint) != before:
                    error.add_note(self._advice())
                raise

    def _advice(self) -> str:
        return f"what was learned is in {self.checkpoint}; to continue:\n  {self.again}"

    def _to_evaluate(self, reference: str) -> str:
        """The command that evaluates the skill, with the options of this one that it needs."""
        words, kept = shlex.split(self.again), []
        for word, value in itertools.pairwise([*words, ""]):
            option, equals, _ = word.partition("=")
            if option in ("--bank", "--env", "--with"):
                kept += [word] if equals else [word, value]
        return shlex.join(["skillbank", "evaluate", "--skill", reference, *kept])

    def measured(self, skill: "Skill") -> "Evaluation":
        """Evaluate a skill on the run's task.

        Raises:
            SkillbankError: It cannot be evaluated there.
        """
        from skillbank.evaluation import evaluate

        with counting(self.episodes, say) as report:
            return evaluate(
                skill,
                self.env_id,
                episodes=self.episodes,
                seed=self.seed,
                report=report,
                env_kwargs=self.env_kwargs,
            )

    def _measure(self, skill: "Skill") -> "Evaluation | None":
        try:
            return self.measured(skill)
        except (SkillbankError, ValueError, TypeError, LookupError, AttributeError) as error:
            # A user's task may report invalid metrics: the skill is saved nevertheless.
            say(f"warning: the skill could not be evaluated: {error}")
            return None

    def _keep(self, skill: "Skill") -> str:
        try:
            reference = self.bank.save(skill, self.name)
        except StorageError as error:
            raise StorageError(f"{error}\n{self._rescued(skill)}") from error
        self.checkpoint.unlink(missing_ok=True)
        ships = [
            one.reference for one in self.bank.listing() if one.shipped and one.name == self.name
        ]
        if ships and reference not in ships:
            say(f"'{self.name}' now means your own skill; the shipped one is '{ships[-1]}'")
        return reference

    def _rescued(self, skill: "Skill") -> str:
        """Save the skill outside of the bank; return a message that says where it is."""
        for folder in (self.folder, Path(tempfile.gettempdir())):
            path = folder / f"{self.name}.h5"
            try:
                skill.save(path)
            except StorageError:
                continue
            return f"nothing is lost: the trained skill is in {path}; --skill accepts that path"
        if self.checkpoint.exists():
            return f"free some space; {self._advice()}"
        return "it could not be saved anywhere else either: free some space and train again"


def draw_evaluations(
    skill: "Skill",
    env_id: str,
    panels: "Mapping[str, Evaluation]",
    folder: Path,
    env_kwargs: "Mapping[str, Any]",
) -> list[str]:
    """Draw the paths of some evaluations, if they have any; return the pictures' file names."""
    if not panels or not all(evaluation.traces for evaluation in panels.values()):
        return []
    from skillbank import figures
    from skillbank.task import Task

    task = Task(env_id, 1, **env_kwargs)
    source: Any = task.envs.unwrapped
    arena = task.arena
    task.close()
    paths: list[str] = []
    with _drawing(folder / "traces.png", paths) as path:
        titled = [(label or skill.spec.name, e) for label, e in panels.items()]
        figures.traces(titled, arena, path)
    if hasattr(source, "place_reward"):  # the multi-goal plane
        last = list(panels.values())[-1]
        with _drawing(folder / "figure_1.png", paths) as path:
            figures.multi_goal(skill, last, source.place_reward, source.goal_places, path)
    return paths


@contextmanager
def _drawing(path: Path, paths: list[str]) -> Iterator[Path]:
    """Add a picture to the list once it is drawn; if it cannot be written, only warn."""
    try:
        yield path
    except StorageError as error:
        say(f"warning: {error}")
    else:
        paths.append(str(path))
