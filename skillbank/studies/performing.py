"""One unit from start to result, in a process of its own.

A unit first writes the skill (or the rival's networks) that others start from, then its result
file; only then is its checkpoint deleted. A kill at any moment loses only the steps since the last
checkpoint, and repeating them gives the same numbers.
"""

import hashlib
import os
import platform
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import skillbank
from skillbank.archives import arrays_of
from skillbank.config import FinetuneConfig, PretrainConfig
from skillbank.durable import alone
from skillbank.errors import TrainingDiverged
from skillbank.evaluation import Evaluation, Policy
from skillbank.figures import FIGURE_1_STATES
from skillbank.skill import Skill
from skillbank.storage import hash_of, read
from skillbank.studies.tracking import Tracker, rounded
from skillbank.studies.unit import (
    FORMAT,
    Json,
    Places,
    RivalConfig,
    Unit,
    done,
    sha256,
    shipped_reference,
    write_json,
)
from skillbank.versions import versions

CHECKPOINT = "checkpoint.npz"  # of an unfinished unit
TRACE_POINTS = 60  # points kept of each path, evenly spaced
LEVELS = 41  # grid points per action dimension of the kept action values
SHOWN_ACTIONS = 100  # actions sampled at each state of figure 1


def perform(unit: Unit, places: Places, parent: Path | None, tell: Callable[[int], None]) -> None:
    """Train and measure a unit and write its result, unless it is done already.

    Args:
        unit: The unit.
        places: Where its files are.
        parent: The skill or networks of the unit's parent; None for none.
        tell: Called with the number of steps from time to time.

    Raises:
        Busy: Another process works on the unit.
        SkillbankError: The unit cannot be performed.
    """
    with at_work(unit, places):
        if not done(unit, places):  # another process may just have finished it
            keep(measured_result(unit, places, parent, tell), unit, places)


@contextmanager
def at_work(unit: Unit, places: Places) -> Iterator[None]:
    """Lock a unit's folder.

    Raises:
        Busy: Another process holds it.
    """
    folder = places.folder(unit)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        yield


def measured_result(
    unit: Unit, places: Places, parent: Path | None, tell: Callable[[int], None]
) -> Json:
    """Train and measure a unit, and save what it learned to ``places.learned(unit)``.

    Returns:
        The content of its result file, which ``keep`` writes.

    Raises:
        SkillbankError: The unit cannot be performed.
    """
    checkpoint = places.folder(unit) / CHECKPOINT
    definition = places.folder(unit) / "definition.txt"
    begun = unit.model_dump_json() + "\n" + _origin(unit, parent)
    if not definition.is_file() or definition.read_text() != begun or not _whole(checkpoint):
        checkpoint.unlink(missing_ok=True)  # of another definition or parent, or damaged
        definition.write_text(begun)
    measured: Json
    made: Json = {}
    told = {"sources": _sources()}  # of what is loaded now; the files may change until the end
    if parent is not None:
        told["parent"] = parameters_hash(parent)
    try:
        measured, made = _measured(unit, places, parent, checkpoint, tell)
        left = places.learned(unit)
        made |= {"learned": sha256(left), "parameters": parameters_hash(left)}
    except TrainingDiverged as error:  # a result too
        measured = {"diverged": str(error)}
    return _result(unit, measured, made | told)


def without_parent(unit: Unit) -> Json:
    """The result of a unit whose parent's training diverged: it counts as diverged too."""
    return _result(
        unit,
        {"diverged": f"its parent {unit.parent} diverged"},
        {"parent": "", "sources": _sources()},
    )


def _result(unit: Unit, measured: Json, made: Json) -> Json:
    return {
        "format": FORMAT,
        "unit": unit.model_dump(mode="json"),
        "measured": measured,
        "made": made
        | {
            "versions": versions() | _rival_versions(unit),
            "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        },
    }


def _origin(unit: Unit, parent: Path | None) -> str:
    """Hash of the file, or of the shipped skill, that a unit starts from; empty for none."""
    if reference := shipped_reference(unit.parent):
        return str(shipped(reference).content_hash)
    return "" if parent is None else sha256(parent)


def parameters_hash(path: Path) -> str:
    """Hash of a skill's or a rival's parameters; repeating a training gives the same hash."""
    if not zipfile.is_zipfile(path):
        return hash_of(b"", read(path).parameters)
    arrays = arrays_of(path)
    return hash_of(b"", {name: value for name, value in arrays.items() if value.dtype.kind == "f"})


def _whole(checkpoint: Path) -> bool:
    """Whether a checkpoint, if there is one, is undamaged."""
    if not checkpoint.is_file():
        return True
    try:
        arrays_of(checkpoint)
    except (OSError, ValueError):
        return False
    return True


def keep(result: Json, unit: Unit, places: Places) -> None:
    """Write the result file of a unit, and delete its checkpoint.

    Raises:
        StorageError: It cannot be written; the checkpoint is still there.
    """
    write_json(places.result(unit), result)
    (places.folder(unit) / CHECKPOINT).unlink(missing_ok=True)


def _measured(
    unit: Unit,
    places: Places,
    parent: Path | None,
    checkpoint: Path,
    tell: Callable[[int], None],
) -> tuple[Json, Json]:
    tracker: Tracker
    policy: Policy
    if isinstance(unit.learning, RivalConfig):
        from skillbank.studies import rivals

        rival = rivals.learn(unit, parent, checkpoint, tell)
        policy, tracker, updates = rival
        rivals.save_policy(rival.model, places.learned(unit))
    else:
        from skillbank.studies import soft_q

        ours = soft_q.learn(unit, _parent_skill(unit, parent), checkpoint, tell)
        policy, tracker, updates = ours
        ours.model.save(places.learned(unit))
    final = tracker.final(policy)
    measured = {
        "steps": unit.total_steps,
        "updates": updates,
        **tracker.report(),
        "final": _summary(final),
    }
    if unit.traces and final.traces:
        measured["traces"] = [_thinned(trace) for trace in final.traces[: unit.traces]]
    if unit.action_values and isinstance(policy, Skill):
        measured["action_values"] = _action_values(policy)
    return measured, tracker.seconds()


def _parent_skill(unit: Unit, parent: Path | None) -> Skill | None:
    if reference := shipped_reference(unit.parent):
        return shipped(reference)
    return None if parent is None else Skill.load(parent)


def shipped(name: str) -> Skill:
    """A skill that ships with skillbank, even if the user's bank has another of the same name."""
    from skillbank.bank import Bank

    with TemporaryDirectory() as empty:
        skill: Skill = Bank(empty, shipped=True).load(name)
    return skill


def _summary(final: Evaluation) -> Json:
    """Of the last evaluation: return, mean of each metric, and the details that figures need."""
    means = {name: rounded(values.mean(keepdims=True))[0] for name, values in final.metrics.items()}
    means.pop("direction", None)
    summary: Json = {
        "episodes": len(final.returns),
        "mean_return": rounded(final.returns.mean(keepdims=True))[0],
        "std_return": rounded(final.returns.std(keepdims=True))[0],
        "mean_length": rounded(final.lengths.mean(keepdims=True))[0],
        "metrics": means,
    }
    if final.traces:  # where each episode ended
        summary["places"] = rounded(np.stack([trace[-1] for trace in final.traces]), 3)
    if "direction" in final.metrics:
        summary["directions"] = rounded(final.metrics["direction"], 3)
    if "goal" in final.metrics:
        goals = final.metrics["goal"].astype(int)
        summary["goals"] = np.bincount(goals[goals >= 0]).tolist()
    if "progress" in final.metrics:
        summary["progress"] = rounded(final.metrics["progress"], 3)
    return summary


def _thinned(trace: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> list[list[float]]:
    at = np.unique(np.linspace(0, len(trace) - 1, TRACE_POINTS).round().astype(int))
    return [[float(f"{x:.4g}") for x in place] for place in trace[at].tolist()]


def _action_values(skill: Skill) -> Json:
    """Q over a grid of the two-dimensional actions at figure 1's states, and sampled actions."""
    low, high = skill.spec.action_low, skill.spec.action_high
    x, y = (np.linspace(low[i], high[i], LEVELS) for i in (0, 1))
    actions = np.stack(np.meshgrid(x, y), -1).reshape(1, -1, 2)
    states = np.array(FIGURE_1_STATES, np.float32)
    q = skill.q(states, np.repeat(actions, len(states), 0))
    return {
        "states": [list(state) for state in FIGURE_1_STATES],
        "q": rounded(q.reshape(len(states), LEVELS, LEVELS), 4),
        "actions": rounded(skill.sample(states, SHOWN_ACTIONS, seed=0), 3),
    }


def _sources() -> str:
    """A hash of the package's source code, the environments included."""
    digest = hashlib.sha256()
    for package in (skillbank, import_module("skillbank.envs")):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _processor() -> str:
    """The kind of processor: on another one, rounding and thus the whole training differ."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        told = ""
    found = dict(re.findall(r"^(vendor_id|cpu family|model)\s*: (.+)$", told, re.MULTILINE))
    capability = torch.backends.cpu.get_cpu_capability()
    return " ".join([platform.machine(), *found.values(), capability])


def _rival_versions(unit: Unit) -> dict[str, str]:
    if isinstance(unit.learning, PretrainConfig | FinetuneConfig):
        return {}
    from importlib.metadata import version

    return {"stable-baselines3": version("stable-baselines3")}
