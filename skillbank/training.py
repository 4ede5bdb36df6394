"""The training loop: collect with parallel simulations, store, update, report."""

import operator
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skillbank import checkpoint
from skillbank.agent import Agent, Figures
from skillbank.bank_folder import checked_name
from skillbank.config import FinetuneConfig, PretrainConfig
from skillbank.durable import as_path
from skillbank.errors import (
    Interrupted,
    InvalidArgument,
    SkillbankError,
    StorageError,
    TrainingDiverged,
    warn,
)
from skillbank.networks import flat_arrays
from skillbank.replay import Batch, Replay, Transitions
from skillbank.side_by_side import InTurn, side_by_side
from skillbank.skill import Skill
from skillbank.spec import CurvePoint, SkillSpec, kept_kwargs
from skillbank.task import Step, Task
from skillbank.versions import versions

RECENT_EPISODES = 50  # episodes over which the learning curve averages the return
CURVE_POINTS = 200  # points of a learning curve
REPORT_SECONDS = 2.0  # maximum wall clock between reports
CHECKPOINT_SECONDS = 120.0  # wall clock between checkpoints
WATCHING = ("on_progress", "should_stop")  # fields of Hooks for what saves nothing


class Progress(NamedTuple):
    """A progress report of a training."""

    steps: int  # environment steps so far, over all copies
    total_steps: int
    updates: int
    seconds: float  # wall clock, over all sessions of this training
    mean_return: float  # undiscounted, of recent episodes; nan before the first has ended
    temperature: float
    figures: dict[str, float]  # diagnostics of the last update; empty before the first


@dataclass
class Hooks:
    """Callbacks and checkpoint settings of a training. The library itself never prints."""

    on_progress: Callable[[Progress], None] | None = None
    on_warning: Callable[[str], None] = warn  # for problems that do not stop the training
    should_stop: Callable[[], bool] = lambda: False
    checkpoint: Path | None = None  # file to save to, every two minutes and when training stops
    resume: bool = False  # resume from that checkpoint
    on_step: "Callable[[Training, Step], None] | None" = None  # after each step of all copies
    # Environment steps per segment. At the end of each, all episodes restart and the checkpoint is
    # written, at no other time. A resumed training then ends bit-identical to an uninterrupted one.
    segment_steps: int | None = None
    memory: dict[str, NDArray[Any]] = field(default_factory=dict)  # caller's data in the checkpoint

    def __post_init__(self) -> None:
        if self.checkpoint is not None:  # a str does as well
            self.checkpoint = as_path(self.checkpoint)
        for name in ("on_progress", "on_warning", "should_stop", "on_step"):
            given = getattr(self, name)
            if not callable(given) and given is not getattr(Hooks, name):
                raise InvalidArgument(f"{name} must be a function, got {given!r}")
        if self.segment_steps is not None and self.segment_steps < 1:
            raise InvalidArgument(f"segment_steps must be 1 or more, got {self.segment_steps}")


def checked_hooks(hooks: Hooks | None, call: str, *used: str) -> Hooks:
    """The hooks given to a function, or new ones.

    Args:
        hooks: What the function was given.
        call: The function, for the messages.
        used: The fields that it uses; none given: all.

    Raises:
        SkillbankError: They are no hooks.
        InvalidArgument: A field is set that the function would ignore.
    """
    if not isinstance(hooks, Hooks | None):
        raise SkillbankError(
            f"{call} takes skillbank.Hooks, for example Hooks(on_progress=print), not "
            f"{type(hooks).__name__}"
        )
    hooks, unset = hooks or Hooks(), Hooks()
    names = [one.name for one in fields(Hooks) if used and one.name not in used]
    if ignored := [one for one in names if getattr(hooks, one) != getattr(unset, one)]:
        raise InvalidArgument(
            f"{call} would ignore the hooks' {', '.join(ignored)}; it uses only {', '.join(used)}"
        )
    return hooks


def save_or_warn(hooks: Hooks, save: Callable[[Path], None]) -> None:
    """Save to the checkpoint, if there is one; a failure only warns, as a later save may succeed.

    Raises:
        TrainingDiverged: What was learned is not finite.
    """
    if hooks.checkpoint is None:
        return
    try:
        save(hooks.checkpoint)
    except StorageError as failure:  # for example a full disk
        hooks.on_warning(str(failure))


@contextmanager
def saving(hooks: Hooks, save: Callable[[Path], None]) -> Iterator[None]:
    """Within this block, an error saves to the checkpoint, and an interruption says so.

    A divergence saves nothing, so that the last good checkpoint remains. If saving fails, a note of
    the error says why.
    """
    path = hooks.checkpoint
    try:
        yield
    except TrainingDiverged:
        raise
    except BaseException as error:
        if path is not None:
            try:
                save(path)
            except (StorageError, TrainingDiverged) as failure:
                error.add_note(str(failure))
        if isinstance(error, Interrupted):
            error.args = (f"{error}; {_saved_at(path)}",)
        raise


def _saved_at(path: Path | None) -> str:
    if path is None:
        return "nothing was saved, as there is no checkpoint"
    return f"what was saved is in {path}" if path.exists() else f"nothing was saved in {path}"


def check_run(seed: int, device: str = "cpu") -> int:
    """Check seed and device; return the seed (an int or a NumPy integer) as an int.

    Raises:
        InvalidArgument: The seed is out of range.
        SkillbankError: The device is not available.
    """
    seed = operator.index(seed)
    if not 0 <= seed < 2**63:
        raise InvalidArgument(f"seed must be 0 or more, and below 2**63, got {seed}")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise SkillbankError(
            f"device '{device}' cannot be used; available: {', '.join(there)}"
        ) from error
    return seed


@dataclass
class Training:
    """A training in progress, with the state that a checkpoint contains."""

    agent: Agent
    task: Task
    config: PretrainConfig | FinetuneConfig
    seed: int
    schedule: Callable[[Agent, int], bool]  # sets alpha, noise set; returns if the sampler learns
    warm: bool  # take the first actions from the sampling network (a skill's), not at random
    level: bool  # initialise the critics to the value estimated from the first rewards
    parents: tuple[str, ...] = ()  # content hashes: the skill it started from, and maybe earlier
    steps: int = 0
    seconds: float = 0.0
    debt: float = 0.0  # updates that are due for the steps so far
    curve: list[CurvePoint] = field(default_factory=list)
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))

    def __post_init__(self) -> None:
        sizes = (self.task.observation_size, self.task.action_size)
        self.replay = Replay(
            self.config.replay_capacity, *sizes, self.task.num_envs, self.agent.device
        )
        self.env_kwargs = kept_kwargs(self.task.env_id, self.task.kwargs)
        self.rng = np.random.default_rng(self.seed)
        self.disturbance = np.zeros((self.task.num_envs, self.task.action_size))  # OU noise
        self.memory: dict[str, NDArray[Any]] = {}  # see Hooks
        # As planned at the first start; a resumed training may be longer.
        self.planned_steps = self.config.total_steps

    def complete(self, name: str, hooks: Hooks) -> Skill:
        """Train to the end and return the skill; raises what ``run`` does."""
        self.skill(name)  # invalid metadata raises before the training
        task = self.task
        if task.max_episode_steps is None and "max_episode_steps" not in task.kwargs:
            warn(
                f"{task.env_id} declares no max_episode_steps: if its episodes do not end by "
                "themselves, the skill cannot be evaluated "
                "(gymnasium.register(..., max_episode_steps=1000) limits them)",
            )
        self.run(hooks)
        return self.skill(name)

    def skill(self, name: str) -> Skill:
        """The skill learned so far."""
        agent, task, config = self.agent, self.task, self.config
        members = 0 if agent.noise_set is None else len(agent.noise_set)
        networks = agent.networks()
        if members == 1:  # the hand-over is complete: Q no longer includes the prior
            networks.pop("anchor", None)
        parameters = flat_arrays(networks)
        if agent.noise_set is not None:
            parameters["noise"] = agent.noise_set.cpu().numpy()
        spec = SkillSpec(
            name=checked_name(name),
            temperature=agent.temperature,
            discount=config.discount,
            reward_scale=config.reward_scale,
            env_id=task.env_id,
            env_kwargs=self.env_kwargs,
            observation_blocks=task.observation_blocks,
            action_low=tuple(task.action_low.tolist()),
            action_high=tuple(task.action_high.tolist()),
            action_dtype="float64" if task.action_dtype == np.float64 else "float32",
            architecture=agent.architecture,
            # As during training: random symmetries, unless the noise set is finite.
            symmetries=() if members or not config.symmetry else task.symmetries,
            anchored="anchor" in networks,
            noise_set=members,
            config=config,
            seed=self.seed,
            steps=self.steps,
            updates=agent.updates,
            learning_curve=tuple(self.curve),
            parents=self.parents,
            model_hash=task.model_hash,
            versions=versions(),
            license="",  # its author's to choose
        )
        return Skill(spec, parameters)

    def run(self, hooks: Hooks) -> None:
        """Train until ``config.total_steps``.

        Raises:
            StorageError: No checkpoint can be written where the hooks want it.
            SkillbankError: Another file is there, or the checkpoint of another, unfinished
                training.
            Interrupted: ``should_stop`` returned True. The checkpoint, if any, is saved, and the
                message names it; in a training with segments it remains that of the last complete
                segment.
            UnsupportedEnvironment: The environment returned invalid data; likewise saved.
            TrainingDiverged: A parameter, action or diagnostic is not finite; the previous
                checkpoint remains.
        """
        self.memory = hooks.memory
        if hooks.resume:
            checkpoint.load(self, hooks.checkpoint)
        if hooks.checkpoint is not None:
            checkpoint.check_place(hooks.checkpoint, hooks.resume)
        begun = self.steps

        def save(path: Path) -> None:
            # Do not overwrite an existing checkpoint if this run has made no step.
            if hooks.segment_steps is None and (self.steps > begun or not path.exists()):
                self._save(path)

        try:
            with saving(hooks, save), side_by_side() as beside:
                self.agent.beside = beside
                self._segments(hooks, beside if self.task.any_thread else InTurn())
        finally:
            self.agent.beside = InTurn()
        if hooks.segment_steps is None and self.steps > begun:  # a later run may extend it
            save_or_warn(hooks, self._save)

    def _segments(self, hooks: Hooks, beside: Executor) -> None:
        while self.steps < self.config.total_steps:
            self._loop(hooks, beside)
            if hooks.segment_steps is not None and self.steps < self.config.total_steps:
                self.replay.end_episodes()
                save_or_warn(hooks, self._save)

    def _loop(self, hooks: Hooks, beside: Executor) -> None:
        """Run each step of the simulation in parallel with the updates due for earlier steps.

        So the acting policy lags behind by at most one step of all copies.
        """
        agent, task, config = self.agent, self.task, self.config
        copies = task.num_envs
        obs = task.reset(seed=self.seed + self.steps)  # new episodes for a resumed training
        running = np.zeros(copies)
        self.disturbance[:] = 0.0
        started = last_save = last_report = time.perf_counter()
        before = self.seconds
        report_every = max(copies, config.total_steps // CURVE_POINTS)
        next_report = (self.steps // report_every + 1) * report_every
        figures: Figures | None = None
        learns = self.schedule(agent, self.steps)
        end = config.total_steps
        if hooks.segment_steps is not None:
            end = min(end, (self.steps // hooks.segment_steps + 1) * hooks.segment_steps)
        while self.steps < end:
            if hooks.should_stop():
                raise Interrupted("interrupted")
            action = self._action(obs)
            simulation = beside.submit(task.step, action)
            figures = self._learn(learns) or figures
            step = simulation.result()
            self._store(obs, action, step)
            obs = step.obs
            running += step.reward.numpy()
            self.disturbance[step.ended] = 0.0
            self.returns.extend(running[step.ended].tolist())
            running[step.ended] = 0.0
            self.steps += copies
            learns = self.schedule(agent, self.steps)
            if self.level and agent.updates == 0 and self.steps > config.learning_starts:
                self._level_critics()
            if self.steps > config.learning_starts:
                self.debt += copies / config.steps_per_update
            if self.steps >= end:  # no further simulation step to run them in parallel with
                figures = self._learn(learns) or figures
            now = time.perf_counter()
            self.seconds = before + now - started
            on_curve = self.steps >= next_report or self.steps >= config.total_steps
            if on_curve or now - last_report > REPORT_SECONDS:
                next_report += report_every if on_curve else 0
                last_report = now
                self._report(figures, hooks, on_curve)
            if hooks.on_step is not None:
                hooks.on_step(self, step)
            if hooks.segment_steps is None and now - last_save > CHECKPOINT_SECONDS:
                save_or_warn(hooks, self._save)
                last_save = time.perf_counter()

    def _store(self, obs: torch.Tensor, action: NDArray[np.float32], step: Step) -> None:
        ended = torch.from_numpy(step.ended).float()
        told = (step.reward, step.terminated, ended, step.next_obs)
        self.replay.add(Transitions(obs, torch.from_numpy(action), *told))

    def _learn(self, train_sampler: bool) -> Figures | None:
        """Make the updates that are due; return the diagnostics of the last one."""
        figures = None
        while self.debt >= 1.0:
            self.debt -= 1.0
            figures = self.agent.update(self._batch(), train_sampler)
        return figures

    def _save(self, path: Path) -> None:
        checkpoint.save(self, path)

    def _action(self, obs: torch.Tensor) -> NDArray[np.float32]:
        """Actions [N, A] for this step: random at first, then the policy's with OU noise."""
        config = self.config
        if not self.warm and self.steps < config.learning_starts:
            return self.rng.uniform(-1.0, 1.0, self.disturbance.shape).astype(np.float32)
        action: NDArray[np.float32] = self.agent.act(obs.to(self.agent.device)).cpu().numpy()
        if not np.isfinite(action).all():
            raise TrainingDiverged(
                f"training diverged before step {self.steps}: an action is not finite; "
                "a smaller learning rate or reward_scale would help"
            )
        if config.noise_sigma == 0.0:
            return action
        kick = config.noise_sigma * self.rng.standard_normal(self.disturbance.shape)
        self.disturbance += kick - config.noise_theta * self.disturbance
        return np.clip(action + self.disturbance, -1.0, 1.0).astype(np.float32)

    def _level_critics(self) -> None:
        """Set the critics' last bias to r / (1 - gamma (1 - p)).

        r is the mean of the first rewards, p the share of the first steps that terminated. This is
        the level of the values without their entropy, which depends on alpha and on the policy, and
        both change. A constant offset of Q does not change the policy, but it is learned only at
        the slow rate of the target network: about 1 / ((1 - gamma) tau) updates per e-fold.
        """
        reward, ends = self.replay.rewards().mean(), self.replay.terminations().mean()
        discount = self.config.discount * (1.0 - float(ends))
        level = self.config.reward_scale * float(reward) / (1.0 - discount)
        for critic in (self.agent.critic, self.agent.target_critic):
            torch.nn.init.constant_(critic["out.bias"], level)

    def _batch(self) -> Batch:
        config = self.config
        far = config.n_step_until is None or self.steps < config.n_step_until
        n_step = config.n_step if far else 1
        batch = self.replay.sample(config.batch_size, self.agent.generator, config.discount, n_step)
        return batch._replace(reward=batch.reward * config.reward_scale)

    def _report(self, figures: Figures | None, hooks: Hooks, on_curve: bool) -> None:
        values = {} if figures is None else figures.summary()
        # Check only at curve points, not at timed reports, so the result is independent of speed.
        if on_curve and not all(np.isfinite(list(values.values()))):
            raise TrainingDiverged(
                f"training diverged at step {self.steps}: {values}; "
                "a smaller learning rate or reward_scale would help"
            )
        mean = float(np.mean(self.returns)) if self.returns else float("nan")
        if self.returns and on_curve:
            point = CurvePoint(
                steps=self.steps,
                updates=self.agent.updates,
                seconds=round(self.seconds, 3),
                mean_return=mean,
                temperature=self.agent.temperature,
            )
            self.curve.append(point)
        if hooks.on_progress is not None:
            steps = self.steps, self.config.total_steps
            so_far = (*steps, self.agent.updates, self.seconds, mean, self.agent.temperature)
            hooks.on_progress(Progress(*so_far, values))
