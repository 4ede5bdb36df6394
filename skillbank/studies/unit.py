"""A unit of a study, and the files that belong to it."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from skillbank.config import (
    Count,
    FinetuneConfig,
    NonNegative,
    Positive,
    PretrainConfig,
    Strict,
    first_problem,
)
from skillbank.durable import replace_file
from skillbank.errors import SkillbankError
from skillbank.spec import Label, Line, Name

FORMAT = 2  # of a result file
BANK = "bank:"  # prefix of a parent that is a skill shipped with skillbank
Budget = Literal["quick", "full"]
Json = dict[str, Any]


class RivalConfig(Strict):
    """How an algorithm of Stable-Baselines3 learns; by default DDPG with the paper's constants."""

    algorithm: Literal["ddpg", "sac"] = "ddpg"
    total_steps: Count
    learning_starts: Annotated[int, Field(ge=0)] = 10_000  # steps before the first update
    hidden: tuple[Count, ...] = (200, 200)  # units of each hidden layer, of actor and critic
    discount: Annotated[float, Field(gt=0, lt=1)] = 0.99
    batch_size: Count = 64
    replay_capacity: Count = 1_000_000
    critic_learning_rate: Positive = 1e-3
    actor_learning_rate: Positive = 1e-4  # sac uses critic_learning_rate for both
    target_period: Annotated[int, Field(ge=0)] = 1_000  # updates between hard copies; 0: Polyak
    target_rate: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the Polyak updates
    noise_sigma: NonNegative = 0.3  # Ornstein-Uhlenbeck noise on the actions, per step
    noise_theta: NonNegative = 0.15
    symmetry: bool = False  # apply a random symmetry of the task to each replayed transition

    @model_validator(mode="after")
    def _consistent(self) -> "RivalConfig":
        if self.symmetry and self.algorithm != "sac":
            raise ValueError("only sac has symmetry")
        return self


class Unit(Strict):
    """One training and how it is measured; equal definitions give equal results.

    The result file stores the whole definition, so that results of an outdated one are detected.
    """

    experiment: Name
    algorithm: Name
    seed: Annotated[int, Field(ge=0)]
    budget: Budget
    env_id: Label
    learning: Annotated[
        PretrainConfig | FinetuneConfig | RivalConfig, Field(union_mode="left_to_right")
    ]
    parent: Label | None = None  # whose skill is fine-tuned: a unit's name, or 'bank:<reference>'
    parent_unit: "Unit | None" = None  # that unit's definition
    segment_steps: Count = 60_000  # steps between checkpoints
    evaluations: Annotated[int, Field(ge=0)] = 20  # points of the curve after the first
    evaluation_episodes: Count = 16  # of each point
    final_episodes: Count = 100
    nominal_start: bool = False  # evaluate from the task's one nominal pose
    deterministic: bool = False  # evaluate by each state's best action
    watched: Label | None = None  # the entry of info whose extremes are kept, such as 'progress'
    traces: Annotated[int, Field(ge=0)] = 0  # final episodes whose whole paths are kept
    action_values: bool = False  # keep Q over the actions at the states of figure 1

    @property
    def name(self) -> str:
        """The unit's name: ``QuadrupedUMaze/anchored-3``."""
        return f"{self.experiment}/{self.algorithm}-{self.seed}"

    @property
    def total_steps(self) -> int:
        """Environment steps of the training."""
        return self.learning.total_steps


class Places(NamedTuple):
    """Where a study's files are."""

    results: Path  # result files, which are small and meant to be kept
    work: Path  # checkpoints, skills, logs

    def result(self, unit: Unit) -> Path:
        """The result file of a unit."""
        return self.results / unit.budget / f"{unit.name}.json"

    def folder(self, unit: Unit) -> Path:
        """Where a unit keeps its checkpoint, log and skill."""
        return self.work / unit.budget / unit.name

    def learned(self, unit: Unit) -> Path:
        """The skill (or the rival's networks) that a finished unit leaves for others."""
        rival = isinstance(unit.learning, RivalConfig)
        return self.folder(unit) / ("policy.npz" if rival else "skill.h5")


def shipped_reference(parent: str | None) -> str | None:
    """The shipped skill's reference in a parent ``bank:REFERENCE``; None for any other parent."""
    if parent is None or not parent.startswith(BANK):
        return None
    return parent.removeprefix(BANK)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    replace_file(path, text.encode() + b"\n")


class _Made(Strict, extra="allow"):
    """What the results page copies from a result's account of how it was made."""

    versions: dict[Line, Line]
    sources: Line
    machine: Line


class _Result(Strict, extra="allow"):
    """The parts of every result."""

    unit: Json
    measured: Json
    made: _Made


def read_result(path: Path) -> Json | None:
    """A result file's content; None where there is none.

    Raises:
        SkillbankError: The file exists, but is not a result of this format.
    """
    if not path.is_file():
        return None
    try:
        result: Json = json.loads(path.read_bytes())
        if result["format"] != FORMAT:
            raise SkillbankError(
                f"{path} has format {result['format']}, expected {FORMAT}; "
                "delete it to run the unit again"
            )
        _Result.model_validate(result)
        if not {"diverged", "final"} & result["measured"].keys():
            raise ValueError("nothing measured")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = first_problem(error) if isinstance(error, ValidationError) else repr(error)
        raise SkillbankError(
            f"{path} is no result of a study ({what}); delete it to run the unit again"
        ) from error
    return result


def current(unit: Unit, places: Places) -> Json | None:
    """A unit's result, if it is of this definition and made from its parent's current skill.

    A setting that is newer than the result counts as having had its default.
    """
    result = read_result(places.result(unit))
    if result is None:
        return None
    try:
        same = Unit.model_validate_json(json.dumps(result["unit"])) == unit
    except ValidationError:  # a setting that no longer exists
        return None
    return result if same and _begun_as_now(unit, result, places) else None


def finished(unit: Unit, places: Places) -> bool:
    """Whether a unit has its result."""
    return current(unit, places) is not None


def _begun_as_now(unit: Unit, result: Json, places: Places) -> bool:
    """Whether a result started from its parent's current skill, as far as both files record it."""
    if unit.parent_unit is None:
        return True
    parent = read_result(places.result(unit.parent_unit))
    begun, left = result["made"].get("parent"), None
    if parent is not None:
        left = "" if "diverged" in parent["measured"] else parent["made"].get("parameters")
    return begun is None or left is None or bool(begun == left)


def startable(unit: Unit, places: Places) -> bool:
    """Whether others can start from a unit: the skill that its result records exists, unchanged."""
    result, path = read_result(places.result(unit)), places.learned(unit)
    if result is None or not path.is_file():
        return False
    return bool(result["made"].get("learned") == sha256(path))


def diverged(unit: Unit, places: Places) -> bool:
    """Whether a unit's result is that its training diverged, so that no other can start from it."""
    result = current(unit, places)
    return result is not None and "diverged" in result["measured"]


def done(unit: Unit, places: Places) -> bool:
    """Whether a unit needs no work: it has its result and, unless it diverged, its skill."""
    return diverged(unit, places) or (finished(unit, places) and startable(unit, places))


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
