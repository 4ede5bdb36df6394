"""Checkpoints of a training: its complete state, except that of the simulation.

A resumed training starts with new episodes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from skillbank.agent import Agent
from skillbank.archives import arrays_of
from skillbank.durable import check_replaceable, replace_durably
from skillbank.errors import SkillbankError, TrainingDiverged
from skillbank.networks import flat_arrays, load_flat_arrays
from skillbank.spec import CurvePoint

if TYPE_CHECKING:
    from skillbank.training import Training

# What values of the wrong kind or size raise while they are put to use.
_MEANINGLESS = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    OverflowError,
)


def save(training: "Training", path: Path) -> None:
    """Write a checkpoint atomically: networks, optimisers, replay, random state, counters.

    Raises:
        StorageError: It cannot be written; the previous checkpoint is unchanged.
        TrainingDiverged: A parameter is not finite; the previous checkpoint is unchanged.
    """
    agent = training.agent
    parts = agent.networks().values()
    if not all(bool(p.isfinite().all()) for part in parts for p in part.parameters()):
        raise TrainingDiverged(f"parameters are not finite; {path} keeps the last good state")
    arrays: dict[str, Any] = {
        **flat_arrays(agent.networks()),
        **optimiser_arrays(_optimisers(agent)),
    }
    arrays["replay"] = training.replay.rows[: len(training.replay)].cpu().numpy()
    arrays["generator"] = agent.generator.get_state().numpy()
    arrays |= {f"memory/{name}": value for name, value in training.memory.items()}
    meta = {
        "started": _started(training),
        "planned_steps": training.planned_steps,
        "steps": training.steps,
        "seconds": training.seconds,
        "debt": training.debt,
        "added": training.replay.added,
        "updates": agent.updates,
        "returns": list(training.returns),
        "curve": [point.model_dump() for point in training.curve],
        "rng": training.rng.bit_generator.state,
    }
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with replace_durably(path) as file:
        np.savez(file, **arrays)


def check_place(path: Path, resume: bool) -> None:
    """Raise, before hours are spent, if a training cannot or should not save to a path.

    Raises:
        StorageError: It cannot be written.
        SkillbankError: A file that is not a checkpoint is there, or, if this training does not
            resume it, the checkpoint of an unfinished one.
    """
    check_replaceable(path)
    if not path.exists():
        return
    _, meta = _read(path, "meta")
    steps, total = meta["steps"], meta["started"]["total_steps"]
    if not resume and 0 < steps < total:
        raise SkillbankError(
            f"{path} holds an unfinished training, at {steps} of {total} steps; pass resume=True "
            "to continue it, or delete it to start again"
        )


def load(training: "Training", path: Path | None) -> None:
    """Restore a training from its checkpoint.

    Raises:
        SkillbankError: There is no checkpoint, or it has another task, configuration or seed.
    """
    if path is None:
        raise SkillbankError("resume=True needs a checkpoint: Hooks(checkpoint=..., resume=True)")
    if not path.is_file():
        raise SkillbankError(f"no checkpoint at {path}; start without resuming")
    arrays, meta = _read(path)
    mine, theirs = _started(training), meta["started"]
    differ = {key: (theirs.get(key), own) for key, own in mine.items() if theirs.get(key) != own}
    differ.pop("total_steps", None)  # a training may be extended
    if differ:
        lines = (f"{key}: {then}, now {now}" for key, (then, now) in differ.items())
        raise SkillbankError(
            f"{path} was started differently; resume with the same settings: {'; '.join(lines)}"
        )
    asked = training.config.total_steps
    try:
        if asked < min(meta["steps"], theirs["total_steps"]):
            raise SkillbankError(f"{path} is at {meta['steps']} steps; total_steps={asked} is less")
        _restore(training, arrays, meta)
    except _MEANINGLESS as error:
        raise SkillbankError(f"{path} is not a checkpoint of this training: {error}") from error


def begun_with(path: Path) -> dict[str, Any]:
    """The configuration and the other settings with which the training was started.

    Raises:
        SkillbankError: The file is not a checkpoint.
    """
    _, meta = _read(path, "meta")
    started: dict[str, Any] = meta["started"]
    return started


def _read(path: Path, *names: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The named arrays of a checkpoint, or all of them, and its document, the array ``meta``."""
    try:
        arrays = arrays_of(path, *names)
        meta = json.loads(arrays.pop("meta").tobytes())
        started = dict(meta["started"])
        started["total_steps"] = int(started["total_steps"])
        return arrays, meta | {"started": started, "steps": int(meta["steps"])}
    except (OSError, *_MEANINGLESS) as error:
        raise SkillbankError(f"{path} is not a checkpoint: {error}") from error


def _started(training: "Training") -> dict[str, Any]:
    """The settings that a resumed training must share with the stopped one."""
    agent = training.agent
    started = training.config.model_dump(mode="json") | {
        "architecture": agent.architecture.model_dump(mode="json"),
        "env_id": training.task.env_id,
        "env_kwargs": training.env_kwargs,
        "seed": training.seed,
        "parent": training.parents[0] if training.parents else None,
        "device": torch.device(agent.device).type,
    }
    return json.loads(json.dumps(started))  # type: ignore[no-any-return]


def _restore(training: "Training", arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    agent = training.agent
    load_flat_arrays(agent.networks(), arrays)
    load_optimisers(_optimisers(agent), arrays)
    rows = torch.from_numpy(arrays["replay"])
    training.replay.added = int(meta["added"])
    size = len(training.replay), training.replay.rows.shape[1]
    assert rows.shape == size, f"transitions of shape {tuple(rows.shape)}, not {size}"
    training.replay.rows[: len(rows)] = rows.to(agent.device)
    training.replay.end_episodes()  # the simulation restarts
    agent.generator.set_state(torch.from_numpy(arrays["generator"]))
    for key, value in arrays.items():
        if key.startswith("memory/"):
            training.memory[key.removeprefix("memory/")] = value
    agent.updates, training.planned_steps = int(meta["updates"]), int(meta["planned_steps"])
    training.steps = int(meta["steps"])
    training.seconds, training.debt = float(meta["seconds"]), float(meta["debt"])
    training.returns.extend(map(float, meta["returns"]))
    training.curve = [CurvePoint.model_validate(point) for point in meta["curve"]]
    training.rng.bit_generator.state = meta["rng"]
    training.schedule(agent, training.steps)


def _optimisers(agent: Agent) -> dict[str, torch.optim.Optimizer]:
    return {
        "critic_optimiser": agent.critic_optimiser,
        "sampler_optimiser": agent.sampler_optimiser,
    }


def optimiser_arrays(optimisers: Mapping[str, torch.optim.Optimizer]) -> dict[str, NDArray[Any]]:
    """The state of the optimisers as arrays named ``optimiser/parameter/quantity``."""
    return {
        f"{part}/{index}/{quantity}": value.cpu().numpy()
        for part, optimiser in optimisers.items()
        for index, state in optimiser.state_dict()["state"].items()
        for quantity, value in state.items()
    }


def load_optimisers(
    optimisers: Mapping[str, torch.optim.Optimizer], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Restore the optimisers from the arrays of ``optimiser_arrays``; other arrays are ignored.

    Raises:
        ValueError: An array does not belong to a parameter. (torch does not check this, and would
            write beyond the array.)
    """
    for part, optimiser in optimisers.items():
        state: dict[int, dict[str, torch.Tensor]] = {}
        parameters = optimiser.param_groups[0]["params"]
        for key, value in arrays.items():
            if key.startswith(f"{part}/"):
                _, index, quantity = key.split("/")
                shape = () if quantity == "step" else parameters[int(index)].shape
                if value.shape != shape or value.dtype != np.float32:
                    raise ValueError(f"{key} is {value.dtype} {value.shape}, not float32 {shape}")
                state.setdefault(int(index), {})[quantity] = torch.from_numpy(value)
        optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
