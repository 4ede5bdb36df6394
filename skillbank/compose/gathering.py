"""The loop shared by everything learned from a composition: act, store, update, report, stop."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from skillbank.compose.acting import Acting, resampled
from skillbank.compose.composed import Composed
from skillbank.config import Count, NonNegative, Positive, Strict, Widths
from skillbank.errors import Interrupted, SkillbankError, TrainingDiverged
from skillbank.replay import Batch, Replay, Transitions
from skillbank.spec import Symmetry
from skillbank.symmetry import Symmetries
from skillbank.task import Task
from skillbank.training import Hooks, Progress, save_or_warn, saving

REPORTS = 50  # per training
STILL = 3  # training stops after this many reports in a row without movement


class Gathering(Strict):
    """Settings shared by everything learned from compositions. None of them needs a reward."""

    total_steps: Count = 40_000  # environment steps over all copies, at most
    learning_starts: Annotated[int, Field(ge=1)] = 1_000  # steps before the first update
    num_envs: Count = 16  # parallel simulations
    steps_per_update: Count = 8  # environment steps (over all copies) per gradient update
    batch_size: Count = 256  # transitions per update
    replay_capacity: Count = 200_000  # transitions
    learning_rate: Positive = 1e-3  # ADAM
    hidden: Widths = (128, 128)  # units of each hidden layer of the learned networks
    target_rate: Annotated[float, Field(gt=0, le=1)] = 0.05  # tau of each target update
    explore: Annotated[float, Field(ge=0, le=1)] = 0.25  # share of actions from any candidate
    # Candidates for each soft value. Not averaged: each update draws one symmetry per skill.
    proposals: Acting = Acting(per_part=6, uniform=4, refined=8, averaged=False)
    settled: NonNegative = 0.02  # stop when reports move less than this; 0: never

    @model_validator(mode="after")
    def _consistent(self) -> "Gathering":
        if self.learning_starts >= self.total_steps:
            raise ValueError("learning_starts must be below total_steps: nothing would be learned")
        if self.replay_capacity < self.num_envs:
            raise ValueError("replay_capacity must hold a step of every copy: num_envs or more")
        if self.batch_size > self.replay_capacity:
            raise ValueError("batch_size must not exceed replay_capacity")
        return self


Config = TypeVar("Config", bound=Gathering)


def checked_config(config: Config | None, kind: type[Config], call: str) -> Config:
    """The configuration given to a function, or the default one.

    Raises:
        SkillbankError: It is of another kind.
    """
    if config is None:
        return kind()
    if not isinstance(config, kind):
        raise SkillbankError(f"{call} takes a {kind.__name__}, not {type(config).__name__}")
    return config


class Report(NamedTuple):
    """One progress report of a training."""

    steps: int
    updates: int
    seconds: float  # wall clock since the start
    loss: float
    level: float  # mean of the learned quantity over a fixed batch of visited states
    moved: float  # change since the previous report, as a share of its spread; 1 in the first


class Learner(Protocol):
    """What ``learn`` trains."""

    def act(self, obs: Tensor) -> Tensor:
        """Scaled actions [N, A] that gather experience."""

    def update(self, batch: Batch) -> Tensor:
        """One gradient step; the loss."""

    def probe(self, batch: Batch) -> Tensor:
        """The learned quantity at a fixed batch of transitions [B]."""


def learn(
    learner: Learner,
    task: Task | None,
    replay: Replay | None,
    config: Gathering,
    *,
    discount: float,
    seed: int,
    hooks: Hooks,
    save: Callable[[Path], None] = lambda _: None,
) -> tuple[Report, ...]:
    """Gather transitions and learn from them until all steps are made or the result has settled.

    Args:
        learner: Acts and learns.
        task: Where to gather transitions; None to learn from ``replay`` alone.
        replay: Transitions to start with; None for none.
        config: The settings.
        discount: gamma.
        seed: Seeds the episodes and all sampling.
        hooks: Progress, stopping and checkpoint.
        save: Saves what was learned to the checkpoint; called at each report and on an error.

    Raises:
        Interrupted: The hooks stopped it.
        TrainingDiverged: It diverged; the last checkpoint is kept.
        SkillbankError: There is nothing to learn from.
    """
    generator = torch.Generator().manual_seed(seed)
    if replay is None:
        if task is None:
            raise SkillbankError("nothing to learn from: give a task, or transitions")
        sizes = (task.observation_size, task.action_size)
        replay = Replay(config.replay_capacity, *sizes, task.num_envs)
    obs = None if task is None else task.reset(seed=seed)
    rows = config.steps_per_update if task is None else task.num_envs
    watch = _Watch(learner, config, hooks, save)
    steps, updates, debt = 0, 0, 0.0
    with saving(hooks, save):
        while steps < config.total_steps and not watch.calm:
            if hooks.should_stop():
                raise Interrupted("interrupted")
            if task is not None and obs is not None:
                action = learner.act(obs)
                step = task.step(action.numpy())
                ended = torch.from_numpy(step.ended.astype(np.float32))
                told = (step.reward, step.terminated, ended, step.next_obs)
                replay.add(Transitions(obs, action, *told))
                obs = step.obs
            steps += rows
            if task is not None and steps <= config.learning_starts:
                continue
            if watch.probe is None:
                watch.probe = replay.sample(config.batch_size, generator, discount)
            debt += rows / config.steps_per_update
            while debt >= 1.0:
                debt -= 1.0
                watch.loss = learner.update(replay.sample(config.batch_size, generator, discount))
                updates += 1
            if updates:
                watch.look(steps, updates)
    if not updates:
        raise SkillbankError(
            f"{steps} steps make no update; a larger total_steps would help, or a smaller "
            "learning_starts or steps_per_update"
        )
    return tuple(watch.reports)


class _Watch:
    """Reports progress, and detects when the result has settled."""

    def __init__(
        self, learner: Learner, config: Gathering, hooks: Hooks, save: Callable[[Path], None]
    ) -> None:
        self.learner, self.config, self.hooks, self.save = learner, config, hooks, save
        self.reports: list[Report] = []
        self.probe: Batch | None = None
        self.loss = torch.tensor(float("nan"))
        self._started = time.perf_counter()
        self._before: Tensor | None = None
        self._due = 0
        self._still = 0  # reports in a row without much movement

    @property
    def calm(self) -> bool:
        """Has the result settled: no movement in the last ``STILL`` reports?"""
        return self._still >= STILL

    def look(self, steps: int, updates: int) -> None:
        """Report and save, if a report is due."""
        if not self.loss.isfinite():
            raise TrainingDiverged(
                f"learning diverged at step {steps}; a smaller learning_rate would help"
            )
        if steps < self._due and steps < self.config.total_steps:
            return
        self._due = steps + max(self.config.total_steps // REPORTS, 1)
        assert self.probe is not None
        now = self.learner.probe(self.probe)
        size = float(now.std(correction=0)) + 1e-3
        moved = 1.0
        if self._before is not None:
            moved = float((now - self._before).square().mean().sqrt()) / size
        self._before = now
        self._still = self._still + 1 if moved < self.config.settled else 0
        seconds = time.perf_counter() - self._started
        level, loss = float(now.mean()), float(self.loss)
        self.reports.append(Report(steps, updates, seconds, loss, level, moved))
        save_or_warn(self.hooks, self.save)
        if self.hooks.on_progress is not None:
            numbers = (steps, self.config.total_steps, updates, seconds)
            figures = {"loss": loss, "level": level}
            self.hooks.on_progress(Progress(*numbers, float("nan"), float("nan"), figures))


def gather_task(composed: Composed, env_id: str | None, copies: int, kwargs: Any) -> Task:
    """Copies of the task that the parts were made for, or of another with the same dynamics."""
    own = composed.spec.env_kwargs if env_id is None else {}
    return Task(env_id or composed.spec.env_id, copies, **{**own, **(kwargs or {})})


@torch.no_grad()
def exploring_action(
    composed: Composed, obs: Tensor, explore: float, generator: torch.Generator
) -> Tensor:
    """Actions [N, A] of the composed policy; a share ``explore`` is drawn from any candidate."""
    composed.critics.look(generator)
    cloud = composed.candidates(obs, generator)
    pick = resampled(cloud, 1, composed.spec.temperature, generator)
    anywhere = torch.randint(cloud.q.shape[1], pick.shape, generator=generator)
    pick = torch.where(torch.rand(pick.shape, generator=generator) < explore, anywhere, pick)
    return torch.tanh(cloud.taken(pick)[0]).squeeze(1)


class Mirrors:
    """Applies a random symmetry to each sampled transition."""

    def __init__(self, declared: Sequence[Symmetry], generator: torch.Generator) -> None:
        self._symmetries = Symmetries(declared) if len(declared) > 1 else None
        self._generator = generator

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its transitions relabelled; unchanged if there is no symmetry."""
        if self._symmetries is None:
            return batch
        return self._symmetries.transitions(batch, self._generator)
