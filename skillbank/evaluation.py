"""Evaluate a policy over whole episodes, one per copy, with intervals and traces."""

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skillbank.errors import (
    IncompatibleSkill,
    InvalidArgument,
    SkillbankError,
    UnsupportedEnvironment,
    warn,
)
from skillbank.spec import EvaluationRecord
from skillbank.task import Step, Task, is_numeric

Array = NDArray[Any]
MAX_COPIES = 100  # parallel simulations of one evaluation
MAX_STEPS = 100_000  # of an episode; a longer one is taken to be endless
MAX_METRICS, MAX_NAME = 500, 128  # metrics in an evaluation record, and characters in a name
SECTORS = 8  # direction sectors of 45 degrees, for tasks that report a position


@runtime_checkable
class Policy(Protocol):
    """Anything with Stable-Baselines3's ``predict``."""

    def predict(self, observation: Any, /, *, deterministic: bool = False) -> tuple[Any, Any]:
        """Actions in the environment's units for observations [B, S]."""


@runtime_checkable
class Fits(Policy, Protocol):
    """A skill or a composed skill: it can be fitted to a task's observations and reseeded."""

    def fitted_to(self, task: Task) -> "Fits":
        """The same policy for the observations of the task."""

    def reseeded(self, seed: int) -> "Fits":
        """The same policy with its own random generator."""


@dataclass(frozen=True)
class Evaluation:
    """The results of a policy in E whole episodes.

    Attributes:
        env_id: The task.
        seed: Seed of the episodes.
        returns: Undiscounted return of each episode [E].
        lengths: Steps of each episode [E].
        metrics: Further results of each episode, [E] each: the last value of each number in the
            task's ``info`` (such as ``success``, ``fallen``, ``distance`` in m, ``progress`` in
            m), nan if it never appeared, and for tasks that report a position ``net_distance``
            (m) and ``direction`` (rad).
        traces: Positions of each episode, [length + 1, 2] in m; empty for tasks that do not report
            a position.
    """

    env_id: str
    seed: int
    returns: Array
    lengths: Array
    metrics: dict[str, Array] = field(default_factory=dict)
    traces: tuple[Array, ...] = field(default=(), repr=False)

    @property
    def mean_return(self) -> float:
        """Mean of the returns."""
        return float(self.returns.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean return."""
        return bootstrap_interval(self.returns)

    @property
    def sectors(self) -> Array:
        """Share of the episodes in each 45-degree sector of direction [8], counter-clockwise.

        The first sector is centred on east (+x).

        Raises:
            SkillbankError: The task reports no positions.
        """
        if "direction" not in self.metrics:
            raise SkillbankError(f"{self.env_id} reports no positions, so there are no directions")
        return direction_counts(self.metrics["direction"], SECTORS) / len(self.returns)

    def record(self) -> EvaluationRecord:
        """A summary to store in the skill, with the mean of each metric's finite values."""
        finite = {
            name: values[np.isfinite(values)]
            for name, values in list(self.metrics.items())[:MAX_METRICS]
            if name.isprintable() and 0 < len(name) <= MAX_NAME  # valid as a name in a skill file
        }
        means = {name: float(values.mean()) for name, values in finite.items() if len(values)}
        for name in ("direction", "goal"):  # means of angles and indices are meaningless
            means.pop(name, None)
        return EvaluationRecord(
            env_id=self.env_id,
            episodes=len(self.returns),
            seed=self.seed,
            mean_return=self.mean_return,
            interval=self.interval,
            metrics=means,
        )


def evaluate(
    skill: Policy,
    env_id: str | None = None,
    *,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = False,
    nominal_start: bool = False,
    report: Callable[[int, int], object] = lambda _ended, _step: None,
    env_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Evaluation:
    """Evaluate a policy over whole episodes.

    Args:
        skill: A skill or a composed one (it is fitted to the task's observations), or any policy
            with Stable-Baselines3's ``predict``.
        env_id: A Gymnasium id, or the bare name of one of skillbank's tasks; None: the skill's own
            task, with the environment keywords stored in the skill.
        episodes: Number of episodes, one per parallel copy, up to 100 copies at once.
        seed: Seed of the starts and of a skill's random actions. Episode i starts from seed
            ``seed + i``, so seeds that differ by less than ``episodes`` share starts.
        deterministic: Take the best action in each state instead of a random one.
        nominal_start: Start every episode from the nominal pose of the task, with the reset option
            ``{"randomize": False}``.
        report: Called after each step of all copies with the number of episodes that have ended
            and the number of steps of those still running.
        env_kwargs: Keyword arguments of the environment.
        kwargs: The same, as separate keywords, but for those named like a parameter above.

    Raises:
        UnsupportedEnvironment: Unknown id, unsupported spaces, or no nominal pose.
        IncompatibleSkill: The skill does not fit the task.
        InvalidArgument: ``episodes`` or ``seed`` is invalid.
        SkillbankError: ``skill`` is not a policy.
    """
    check_policy(skill)
    env_id, kwargs = task_of(skill, env_id, {**(env_kwargs or {}), **kwargs})
    episodes, seed = checked_numbers(episodes, seed)
    parts = []
    for first in range(0, episodes, MAX_COPIES):
        copies = min(MAX_COPIES, episodes - first)
        with closing(Task(env_id, copies, **kwargs)) as task:
            policy = fitted(skill, task, seed + first)
            options = {"randomize": False} if nominal_start else None

            def more(ended: int, step: int, before: int = first) -> None:
                report(before + ended, step)

            parts.append(_rollout(policy, task, seed + first, deterministic, options, more))
    joined = {  # nan in the parts in which a metric never appeared
        name: np.concatenate([p.metrics.get(name, np.full(len(p.returns), np.nan)) for p in parts])
        for name in dict.fromkeys(name for p in parts for name in p.metrics)
    }
    return Evaluation(
        task.env_id,
        seed,
        np.concatenate([p.returns for p in parts]),
        np.concatenate([p.lengths for p in parts]),
        joined,
        tuple(trace for p in parts for trace in p.traces),
    )


def task_of(
    skill: object, env_id: str | None, kwargs: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The requested task or else the skill's own, with the environment's keywords.

    Warns if the parts of a composition were trained with different values of a keyword that is
    not given.

    Raises:
        SkillbankError: No task was given, and the policy has no task of its own.
    """
    if env_id is not None:
        return env_id, dict(kwargs)
    spec = getattr(skill, "spec", None)
    if spec is None:
        raise SkillbankError(f"{skill!r} has no task of its own: give a Gymnasium id")
    for name, values in getattr(spec, "disputed", {}).items():
        if name not in kwargs:
            warn(
                f"the parts of '{spec.name}' differ in {name} ({', '.join(map(str, values))}); "
                f"using the default of {spec.env_id}. Set it by evaluate(..., {name}=...)"
            )
    return str(spec.env_id), {**getattr(spec, "env_kwargs", {}), **kwargs}


def checked_numbers(episodes: int, seed: int) -> tuple[int, int]:
    """The number of episodes and their seed as ints, also of NumPy integers.

    Raises:
        InvalidArgument: One is out of range.
        TypeError: One is not a whole number.
    """
    episodes, seed = operator.index(episodes), operator.index(seed)
    if episodes < 1 or not 0 <= seed < 2**63 - episodes:
        raise InvalidArgument(
            f"episodes must be >= 1 and seed >= 0, below 2**63, got {episodes} and {seed}"
        )
    return episodes, seed


def fitted(policy: Policy, task: Task, seed: int) -> Policy:
    """A skill fitted to the task, with its own seed; any other policy as it is."""
    return policy.fitted_to(task).reseeded(seed) if isinstance(policy, Fits) else policy


def check_policy(skill: object) -> None:
    """Raise if an object is not a policy, for example a skill's name.

    Raises:
        SkillbankError: It is not a policy. For a name, the message says how to load the skill.
    """
    if isinstance(skill, str):
        how = "skillbank.Skill.load" if skill.endswith(".h5") else "skillbank.Bank().load"
        raise SkillbankError(f"'{skill}' is only a name; load it first: {how}(\"{skill}\")")
    if not isinstance(skill, Policy):
        raise SkillbankError(f"{skill!r} is not a policy: it has no predict()")


def _rollout(
    policy: Policy,
    task: Task,
    seed: int,
    deterministic: bool,
    options: dict[str, Any] | None,
    report: Callable[[int, int], object],
) -> Evaluation:
    """Run one episode of every copy; a copy that has ended is ignored until all have ended."""
    copies = task.num_envs
    # With one copy, check the nominal start by resetting it once more with another seed.
    other = task.reset(seed=seed + 1, options=options) if options and copies == 1 else None
    obs = task.reset(seed=seed, options=options)
    if options and bool((obs != (obs[0] if other is None else other)).any()):
        raise UnsupportedEnvironment(
            f"{task.env_id} has no nominal start: its reset ignores the options {options}"
        )
    running, returns = np.ones(copies, bool), np.zeros(copies)
    lengths = np.zeros(copies, np.int64)
    metrics: dict[str, Array] = {}
    place = final_info(task.info, ~running).get("position")
    path = [] if place is None or place.shape != (copies, 2) else [place]
    steps = stepped(policy, task, obs, deterministic)
    while running.any():
        step = next(steps)
        returns += running * step.reward.numpy()
        lengths += running
        facts = final_info(step.info, step.ended)
        if path:
            here = (running & facts.get("_position", running))[:, None]
            place = facts.get("position", path[-1])
            if place.shape != (copies, 2):
                raise UnsupportedEnvironment(
                    f"{task.env_id}: the position has shape {place.shape[1:]}, and (2,) at reset"
                )
            path.append(np.where(here, place, path[-1]))
        for name, values in facts.items():
            if values.shape != (copies,) or name == "heading" or name.startswith(("_", "reward/")):
                continue
            told = running & facts.get(f"_{name}", running)
            if told.any():
                kept = metrics.setdefault(name, np.full(copies, np.nan))
                kept[told] = values[told]
        running &= ~step.ended
        report(copies - int(running.sum()), int(lengths.max()))
    traces: tuple[Array, ...] = ()
    if path:
        whole = np.stack(path)  # [T + 1, copies, 2]
        travel = whole[-1] - whole[0]
        metrics["net_distance"] = np.linalg.norm(travel, axis=1)
        metrics["direction"] = np.arctan2(travel[:, 1], travel[:, 0])
        traces = tuple(whole[: lengths[i] + 1, i] for i in range(copies))
    return Evaluation(task.env_id, seed, returns, lengths, metrics, traces)


def stepped(policy: Policy, task: Task, obs: Tensor, deterministic: bool) -> Iterator[Step]:
    """Act in the task from the observations obs [N, S], and yield each step, without end.

    Raises:
        IncompatibleSkill: The policy's actions have the wrong shape or are not finite.
        UnsupportedEnvironment: An episode does not end.
    """
    predict: Any = policy.predict
    memory: dict[str, Any] = {}  # of a recurrent policy
    lengths = np.zeros(task.num_envs, np.int64)
    while True:
        check_ending(task, int(lengths.max()))
        action, state = predict(obs.numpy(), deterministic=deterministic, **memory)
        _check_action(task, action)
        step = task.step(action, scaled=False)
        if state is not None:
            memory = {"state": state, "episode_start": step.ended}
        obs = step.obs
        lengths = np.where(step.ended, 0, lengths + 1)
        yield step


def _check_action(task: Task, action: Any) -> None:
    shape = (task.num_envs, task.action_size)
    if np.shape(action) != shape:
        raise IncompatibleSkill(
            f"the policy's actions have shape {np.shape(action)}; {task.env_id} needs {shape}"
        )
    if not np.isfinite(action).all():
        raise IncompatibleSkill(f"an action of the policy for {task.env_id} is not finite")


def check_ending(task: Task, steps: int) -> None:
    """Raise if the episode has reached ``MAX_STEPS``.

    Raises:
        UnsupportedEnvironment: The episode has not ended by then.
    """
    if steps >= MAX_STEPS:
        raise UnsupportedEnvironment(
            f"{task.env_id} has not ended an episode in {MAX_STEPS} steps: it needs "
            "max_episode_steps, as in gymnasium.register(..., max_episode_steps=1000)"
        )


def final_info(info: dict[str, Any], ended: Array) -> dict[str, Array]:
    """Numeric entries of ``info`` [N, ...]; for ended episodes, those of the final info.

    As in Gymnasium, the mask ``_name`` [N] marks the copies that reported ``name``; it is omitted
    if all did.
    """
    final: dict[str, Any] = info.get("final_info", {}) if ended.any() else {}
    everybody = np.ones(len(ended), bool)
    facts: dict[str, Array] = {}
    for name in dict.fromkeys([*info, *final]):
        now: Any = info.get(name)
        last: Any = final.get(name)
        if name.startswith(("_", "final_")) or not (is_numeric(now) or is_numeric(last)):
            continue
        if is_numeric(now):
            value, told = np.array(now), np.array(info.get(f"_{name}", everybody))
        else:
            value, told = np.zeros_like(last), ~everybody
        if "final_info" in info:  # where an episode ended, info is that of the next episode
            told[ended] = False
        if is_numeric(last):
            there = ended & final.get(f"_{name}", everybody)
            value = value.astype(np.result_type(value, last))
            value[there] = last[there]
            told |= there
        facts[name] = value
        if not told.all():
            facts[f"_{name}"] = told
    return facts


def direction_counts(directions: ArrayLike, bins: int) -> NDArray[np.int64]:
    """Count angles (rad) in equal bins of the circle [bins].

    The first bin is centred on 0, so with 4, 8, ... bins the coordinate axes lie in the middle of
    bins.
    """
    turns = np.asarray(directions, np.float64) / (2.0 * np.pi)
    which = np.floor(turns * bins + 0.5).astype(int) % bins
    found: NDArray[np.int64] = np.bincount(which, minlength=bins)
    return found


def bootstrap_interval(values: Array) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the mean of values [E]."""
    from scipy.stats import bootstrap

    if len(values) < 2 or np.ptp(values) == 0.0:
        return float(values.mean()), float(values.mean())
    rng = np.random.default_rng(0)
    found = bootstrap((values,), np.mean, method="percentile", n_resamples=2000, rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
