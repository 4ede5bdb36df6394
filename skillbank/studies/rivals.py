"""A unit of Stable-Baselines3: DDPG with the paper's constants, or SAC.

The library draws from the global generators of NumPy and torch, so a unit needs a process of its
own. A training starts with uniform actions (to which the library adds DDPG's noise), a fine-tuning
with the pretrained policy's.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DDPG, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from skillbank.archives import arrays_of
from skillbank.baselines import StableBaselinesTask
from skillbank.checkpoint import load_optimisers, optimiser_arrays
from skillbank.durable import replace_durably
from skillbank.errors import IncompatibleSkill, TrainingDiverged, UnsupportedEnvironment
from skillbank.spec import ObservationBlock, block_columns, blocks_text
from skillbank.studies.paper_ddpg import PaperDDPG, library_settings
from skillbank.studies.tracking import Learned, Tracker
from skillbank.studies.unit import RivalConfig, Unit
from skillbank.symmetry import Symmetries

COPIES = 1  # environments, as in the paper and in the library's own defaults
Arrays = dict[str, Any]  # NumPy arrays by name


class _Watched(StableBaselinesTask):
    """The task, with a callback after every step."""

    told: Callable[[], None] | None = None

    def step_wait(self) -> Any:
        made = super().step_wait()
        if self.told is not None:
            self.told()
        return made


def learn(
    unit: Unit, parent: Path | None, checkpoint: Path, tell: Callable[[int], None]
) -> Learned[DDPG | SAC]:
    """Train a unit, from its checkpoint if there is one, else from a parent's networks if given."""
    config = unit.learning
    assert isinstance(config, RivalConfig)
    torch.set_num_threads(1)
    envs = _Watched(unit.env_id, COPIES)
    model = _model(config, envs, unit.seed, warm=parent is not None)
    model.set_logger(Logger(None, []))
    if parent is not None:
        start_from(model, envs, parent)
    tracker = Tracker(unit, COPIES, tell)
    if checkpoint.is_file():
        _load(model, tracker, checkpoint)
    steps = model.num_timesteps

    def told() -> None:
        nonlocal steps
        steps += COPIES
        assert envs.last_step is not None
        tracker(steps, envs.last_step, lambda: model)

    envs.told = told
    while model.num_timesteps < unit.total_steps:
        segment = model.num_timesteps // unit.segment_steps + 1
        end = min(unit.total_steps, segment * unit.segment_steps)
        # From here on, nothing depends on earlier segments except through what a checkpoint holds.
        model.set_random_seed(unit.seed + model.num_timesteps)
        model._last_obs = None
        if model.action_noise is not None:
            model.action_noise.reset()
        try:
            model.learn(end - model.num_timesteps, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
        except (UnsupportedEnvironment, ValueError):  # actions, or SAC's densities, are not finite
            if _finite(model):
                raise
        if not _finite(model):
            raise TrainingDiverged(f"{unit.name} diverged before step {steps}")
        if model.num_timesteps < unit.total_steps:
            _save(model, tracker, checkpoint)
    envs.close()
    return Learned(model, tracker, model._n_updates)


def _finite(model: DDPG | SAC) -> bool:
    return all(bool(p.isfinite().all()) for p in model.policy.parameters())


def _model(config: RivalConfig, envs: StableBaselinesTask, seed: int, warm: bool) -> DDPG | SAC:
    if config.algorithm == "ddpg":
        return PaperDDPG(config, envs, seed, warm)
    settings = library_settings(config, seed)
    if config.symmetry:
        settings["replay_buffer_class"] = _SymmetricReplay
        settings["replay_buffer_kwargs"] = {"symmetries": Symmetries(envs.task.symmetries)}
    return SAC("MlpPolicy", envs, tau=config.target_rate, **settings)


class _SymmetricReplay(ReplayBuffer):
    """The library's replay, with a random symmetry of the task applied to each transition."""

    def __init__(self, *args: Any, symmetries: Symmetries, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._symmetries = symmetries

    def sample(self, *args: Any, **kwargs: Any) -> ReplayBufferSamples:
        """Sample transitions, as the library does, and apply the symmetries."""
        found = super().sample(*args, **kwargs)
        which = self._symmetries.draw(len(found.rewards), torch.default_generator)
        obs, action, next_obs = self._symmetries.relabelled(
            found.observations, found.actions, found.next_observations, which
        )
        return found._replace(observations=obs, actions=action, next_observations=next_obs)


# Policies that other units start from: parameters, and the observation blocks they are for.


def save_policy(model: DDPG | SAC, path: Path) -> None:
    """Save a model's networks as arrays."""
    envs = model.get_env()
    assert isinstance(envs, StableBaselinesTask)
    blocks = envs.task.observation_blocks
    arrays: Arrays = {
        "blocks": np.array([block.name for block in blocks]),
        "sizes": np.array([block.size for block in blocks]),
    }
    with replace_durably(path) as file:
        np.savez(file, **arrays, **_networks(model))


def start_from(model: DDPG | SAC, envs: StableBaselinesTask, path: Path) -> None:
    """Load saved networks; observation blocks that are new to them enter at zero weight.

    Raises:
        IncompatibleSkill: A block that they observe is missing.
    """
    arrays = arrays_of(path)
    names, sizes = arrays.pop("blocks").tolist(), arrays.pop("sizes").tolist()
    own = [ObservationBlock(name=n, size=s) for n, s in zip(names, sizes, strict=True)]
    columns = block_columns(own, envs.task.observation_blocks)
    if columns is None:
        raise IncompatibleSkill(
            f"{path} observes {blocks_text(own)}; {envs.task.env_id} lacks some of it"
        )
    state = model.policy.state_dict()
    for name, value in arrays.items():
        key = name.removeprefix("policy/")
        taken = torch.from_numpy(value)
        if key.endswith(".0.weight"):  # a first layer [units, S (+ A)]
            wide = torch.zeros_like(state[key])
            wide[:, columns] = taken[:, : len(columns)]
            wide[:, envs.task.observation_size :] = taken[:, len(columns) :]
            taken = wide
        state[key] = taken
    model.policy.load_state_dict(state)


# Checkpoints: networks, optimisers, replay and counts; every segment reseeds the random states.


def _networks(model: DDPG | SAC) -> Arrays:
    return {f"policy/{k}": v.numpy().copy() for k, v in model.policy.state_dict().items()}


def _optimisers(model: DDPG | SAC) -> dict[str, torch.optim.Optimizer]:
    found = {"actor": model.actor.optimizer, "critic": model.critic.optimizer}
    entropy = getattr(model, "ent_coef_optimizer", None)
    return found if entropy is None else found | {"entropy": entropy}


_REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def _save(model: DDPG | SAC, tracker: Tracker, path: Path) -> None:
    arrays = _networks(model)
    arrays |= optimiser_arrays(_optimisers(model))
    if isinstance(model, SAC) and model.log_ent_coef is not None:
        arrays["log_ent_coef"] = model.log_ent_coef.detach().numpy()
    replay = model.replay_buffer
    assert replay is not None
    rows = replay.size()
    arrays |= {f"replay/{name}": getattr(replay, name)[:rows] for name in _REPLAY}
    counts = (model.num_timesteps, model._n_updates, model._episode_num, replay.pos)
    arrays["counts"] = np.array([*counts, int(replay.full)])
    arrays |= {f"memory/{name}": value for name, value in tracker.memory.items()}
    with replace_durably(path) as file:
        np.savez(file, **arrays)


def _load(model: DDPG | SAC, tracker: Tracker, path: Path) -> None:
    arrays = arrays_of(path)

    def part(prefix: str) -> Arrays:
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    model.policy.load_state_dict({k: torch.from_numpy(v) for k, v in part("policy/").items()})
    load_optimisers(_optimisers(model), arrays)
    if isinstance(model, SAC) and model.log_ent_coef is not None:
        with torch.no_grad():
            model.log_ent_coef.copy_(torch.from_numpy(arrays["log_ent_coef"]))
    replay = model.replay_buffer
    assert replay is not None
    for name, rows in part("replay/").items():
        getattr(replay, name)[: len(rows)] = rows
    steps, updates, episodes, position, full = arrays["counts"].tolist()
    model.num_timesteps, model._n_updates, model._episode_num = steps, updates, episodes
    replay.pos, replay.full = position, bool(full)
    tracker.memory.update(part("memory/"))
