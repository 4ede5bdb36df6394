"""Pretraining: learn a broad maximum-entropy skill from scratch (algorithm 1)."""

from contextlib import closing
from typing import Any

from skillbank.agent import Agent
from skillbank.config import PretrainConfig, noise_fed, recipe, resolve
from skillbank.errors import SkillbankError
from skillbank.names import pretrained_name
from skillbank.skill import Skill
from skillbank.task import Task
from skillbank.training import Hooks, Training, check_run, checked_hooks


def pretrain(
    env_id: str = "skillbank/QuadrupedRun-v0",
    config: PretrainConfig | None = None,
    *,
    seed: int = 0,
    name: str | None = None,
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
        name: Name of the skill; None: after the task (``names.pretrained_name``).
        device: ``cpu``, ``cuda``, ...
        hooks: Callbacks for progress and stopping, and checkpoints.
        env_kwargs: Keyword arguments of the environment.

    Raises:
        UnsupportedEnvironment: Unknown id, unsupported spaces, or an invalid step.
        InvalidName: The name is invalid.
        Interrupted: The hooks stopped it.
    """
    seed, hooks = check_run(seed, device), checked_hooks(hooks, "pretrain()")
    env_id = resolve(env_id)
    if not isinstance(config, PretrainConfig | None):
        raise SkillbankError(
            "pretraining takes a PretrainConfig, for example config.recipe(env_id), not "
            f"{type(config).__name__}"
        )
    config = recipe(env_id) if config is None else config
    with closing(Task(env_id, config.num_envs, **(env_kwargs or {}))) as task:
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
        return training.complete(name or pretrained_name(env_id), hooks)


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
