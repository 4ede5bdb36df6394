"""Pretraining: learn a broad maximum-entropy skill from scratch (algorithm 1)."""

import operator
from typing import Any

import numpy as np

from skillbank.agent import Agent
from skillbank.bank_folder import checked_name
from skillbank.config import PretrainConfig, noise_fed, recipe
from skillbank.errors import InvalidArgument, SkillbankError
from skillbank.networks import flat_arrays
from skillbank.skill import Skill
from skillbank.spec import SkillSpec
from skillbank.task import Task, resolve
from skillbank.training import Hooks, Training
from skillbank.versions import versions


def pretrain(
    env_id: str = "skillbank/QuadrupedRun-v0",
    config: PretrainConfig | None = None,
    *,
    seed: int = 0,
    name: str = "skill",
    device: str = "cpu",
    hooks: Hooks | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> Skill:
    """Learn a skill by soft Q-learning.

    Args:
        env_id: A Gymnasium id, or the bare name of one of skillbank's tasks.
        config: The configuration; None: the recipe of the task. For actions with one component,
            the sampling network is always the noise-fed one (see ``for_one_action``).
        seed: Seed of the simulation, the initial parameters and all sampling.
        name: Name of the skill.
        device: ``cpu``, ``cuda``, ...
        hooks: Callbacks for progress and stopping, and checkpoints.
        env_kwargs: Keyword arguments of the environment.

    Raises:
        UnsupportedEnvironment: Unknown id, unsupported spaces, or an invalid step.
        InvalidName: The name is invalid.
        Interrupted: The hooks stopped it.
    """
    seed = check_run(seed, device)
    env_id = resolve(env_id)
    if not isinstance(config, PretrainConfig | None):
        raise SkillbankError(
            "pretraining takes a PretrainConfig, for example config.recipe(env_id), not "
            f"{type(config).__name__}"
        )
    config = recipe(env_id) if config is None else config
    task = Task(env_id, config.num_envs, **(env_kwargs or {}))
    if task.action_size == 1:
        config = for_one_action(config)
    sizes = (task.observation_size, task.action_size)
    symmetries = task.symmetries if config.symmetry else ()
    alpha = config.temperature
    agent = Agent(config.architecture, config, *sizes, alpha, seed, device, symmetries)

    def schedule(agent: Agent, steps: int) -> bool:
        agent.temperature = temperature_at(config, steps, training.planned_steps)
        return True  # the sampling network always learns

    training = Training(
        agent,
        task,
        config,
        seed=seed,
        schedule=schedule,
        warm=False,
        level=config.level_critics,
    )
    try:
        finished_skill(training, name=name)  # invalid metadata raises before the training
        training.run(hooks or Hooks())
    finally:
        task.close()
    return finished_skill(training, name=name)


def temperature_at(config: PretrainConfig, steps: int, planned: int) -> float:
    """Alpha after ``steps`` environment steps, log-linear from ``first_temperature``.

    The skill's temperature is reached after half of the steps planned at the start of the training.
    At a low temperature the body first learns to move; as the temperature rises, it learns more
    diverse ways to do so.
    """
    if config.first_temperature is None:
        return config.temperature
    ahead = max(0.0, 1.0 - 2.0 * steps / planned)  # of the first half
    return float(config.temperature * (config.first_temperature / config.temperature) ** ahead)


def for_one_action(config: PretrainConfig) -> PretrainConfig:
    """The configuration with the paper's noise-fed network: a coupling needs two components."""
    if config.architecture.sampler == "noise":
        return config
    network = config.architecture.model_copy(update={"sampler": "noise"})
    return noise_fed(config.model_copy(update={"architecture": network}))


def check_run(seed: int, device: str) -> int:
    """Check seed and device; return the seed (an int or a NumPy integer) as an int.

    Raises:
        InvalidArgument: The seed is out of range.
        SkillbankError: The device is not available.
    """
    import torch

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


def finished_skill(training: Training, *, name: str, parents: tuple[str, ...] = ()) -> Skill:
    """The skill learned so far by a training."""
    agent, task, config = training.agent, training.task, training.config
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
        env_kwargs=training.env_kwargs,
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
        seed=training.seed,
        steps=training.steps,
        updates=agent.updates,
        learning_curve=tuple(training.curve),
        parents=parents,
        model_hash=task.model_hash,
        versions=versions(),
    )
    return Skill(spec, parameters)
