"""Fine-tuning of a skill on another task, by the paper's schedule or anchored to the skill.

Both anneal alpha log-linearly and shrink a fixed noise set to one member (appendix D.1).

``paper``: training of the skill's Q-function and sampling network continues on the new reward.

``anchored``: the skill is the prior. The objective is ``r - alpha KL(pi || pi_0)`` with pi_0 the
skill's sampling distribution, whose density is exact. The task's Q starts as a constant, so the
policy starts as the skill; ``V(s) = alpha log E_{a ~ pi_0} exp(Q(s, a) / alpha)``, and pi is
proportional to ``pi_0 exp(Q / alpha)``.

A finite noise set has no density, so densities are phased out as the set shrinks. The log-weights
of the soft value (log prior - log q) and the entropy in the sampling network's objective are
multiplied by ``lambda = (K_xi - 1) / (K_0 - 1)``, the hand-over, which falls from 1 to 0 with the
size of the set. At 1 the estimate is eq. 10; at 0 it is
``alpha log mean_i exp(Q(s, f(xi_i; s)) / alpha)``, the soft value of the set. (Either with K_V
samples, and its bias: see ``value_samples``.) In between, each
removed member changes the estimate by O(1 / K_xi), so it is smooth up to the last few members.
(With uniform proposals, as in preset ``paper``, the soft value remains that of the whole box.)
"""

from contextlib import closing
from typing import Any

import torch

from skillbank.agent import Agent
from skillbank.config import (
    FinetuneConfig,
    Preset,
    finetune_recipe,
    noise_fed,
    resolve,
)
from skillbank.config import Schedule as ScheduleName
from skillbank.errors import IncompatibleSkill, SkillbankError, warn
from skillbank.evaluation import check_policy
from skillbank.names import finetuned_name
from skillbank.networks import FlowSampler
from skillbank.skill import Skill
from skillbank.spec import SkillSpec
from skillbank.task import Task
from skillbank.training import Hooks, Training, check_run, checked_hooks


def finetune(
    skill: Skill,
    env_id: str = "skillbank/QuadrupedHallwayNarrow-v0",
    config: FinetuneConfig | None = None,
    *,
    seed: int = 0,
    name: str | None = None,
    device: str = "cpu",
    hooks: Hooks | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> Skill:
    """Fine-tune a skill on a task.

    Args:
        skill: The skill to start from; not modified. Observation blocks of the task that it does
            not have are added with zero weights.
        env_id: A Gymnasium id, or the bare name of one of skillbank's tasks.
        config: The configuration; None: the recipe of the task, in the skill's units.
        seed: Seed of the simulation and all sampling.
        name: Name of the new skill; None: ``run_anywhere.quadruped_hallway_narrow``, of both.
        device: ``cpu``, ``cuda``, ...
        hooks: Callbacks for progress and stopping, and checkpoints.
        env_kwargs: Keyword arguments of the environment.

    Raises:
        IncompatibleSkill: The skill does not fit the task or the schedule.
        UnsupportedEnvironment: Unknown id, unsupported spaces, or an invalid step.
        InvalidName: The name is invalid.
        Interrupted: The hooks stopped it.
    """
    seed, hooks = check_run(seed, device), checked_hooks(hooks, "finetune()")
    env_id = resolve(env_id)
    _check_skill(skill)
    if not isinstance(config, FinetuneConfig | None):
        raise SkillbankError(
            "fine-tuning takes a FinetuneConfig, for example finetuning.recipe_for(skill.spec, "
            f"env_id), not {type(config).__name__}"
        )
    config = recipe_for(skill.spec, env_id) if config is None else config
    for unit in ("discount", "reward_scale"):
        own, asked = getattr(skill.spec, unit), getattr(config, unit)
        if config.schedule == "paper" and own != asked:
            warn(
                f"the Q-function of '{skill.spec.name}' is for {unit} {own}, not {asked}, and must "
                "be relearned; finetuning.recipe_for(skill.spec, task) uses the skill's units",
            )
    updates = (config.total_steps - config.learning_starts) // config.steps_per_update
    at_once = max(1, config.num_envs // config.steps_per_update)
    if 0 < updates <= -(-config.frozen_updates // at_once) * at_once:
        warn(
            f"the policy will not change: all {updates} updates are within the first "
            f"frozen_updates={config.frozen_updates}; reduce these, or increase total_steps",
        )
    with closing(Task(env_id, config.num_envs, **(env_kwargs or {}))) as task:
        start = skill.fitted_to(task)
        training = Training(
            started_agent(start, task, config, seed, device),
            task,
            config,
            seed=seed,
            schedule=Schedule(config, start, seed, device),
            warm=True,
            level=config.schedule == "anchored",
            parents=skill.as_parents(),
        )
        return training.complete(name or finetuned_name(skill.spec.name, env_id), hooks)


def recipe_for(
    skill: Skill | SkillSpec,
    env_id: str,
    preset: Preset = "default",
    schedule: ScheduleName | None = None,
) -> FinetuneConfig:
    """The default configuration for fine-tuning a skill, given it or its spec, on a task.

    This is the recipe of the task in the units of the skill: its discount and reward scale, with
    alpha scaled accordingly. A skill with a noise-fed network uses the paper's schedule by default,
    because its density is unknown.

    Raises:
        IncompatibleSkill: It is no skill.
        UnsupportedEnvironment: The task is unknown.
    """
    if not isinstance(skill, SkillSpec):
        _check_skill(skill)
    spec = skill.spec if isinstance(skill, Skill) else skill
    noise = spec.architecture.sampler == "noise"
    config = finetune_recipe(env_id, preset, schedule or ("paper" if noise else None))
    scale = spec.reward_scale / config.reward_scale
    own = {
        "discount": spec.discount,
        "reward_scale": spec.reward_scale,
        "temperature": config.temperature and config.temperature * scale,
        "final_temperature": config.final_temperature * scale,
    }
    config = config.model_copy(update=own)
    return noise_fed(config) if noise else config


def _check_skill(skill: object) -> None:
    check_policy(skill)
    if not isinstance(skill, Skill):
        raise IncompatibleSkill(f"{skill!r} is not a skill; distill() turns a composition into one")


def check_schedule(skill: Skill, config: FinetuneConfig) -> None:
    """Raise if a skill cannot be fine-tuned as configured.

    Raises:
        IncompatibleSkill: Its policy has no density for an anchor or for the objective, or is not
            determined by its critic alone.
    """
    spec = skill.spec
    no_density = spec.architecture.sampler == "noise"
    if no_density and config.objective == "divergence":
        raise IncompatibleSkill(
            f"skill '{spec.name}' has a noise-fed sampling network, which has no density for "
            "objective 'divergence'; use schedule 'paper' with objective 'stein' and proposals "
            "'uniform'"
        )
    if config.schedule == "paper" and spec.anchored and skill.noise_set is None:
        raise IncompatibleSkill(
            f"skill '{spec.name}' is anchored to its parent, so its critic alone does not "
            "determine its policy; use schedule 'anchored'"
        )
    if config.schedule == "anchored" and skill.noise_set is not None:
        raise IncompatibleSkill(
            f"skill '{spec.name}' acts by a finite noise set, which has no density for an "
            "anchor; use schedule 'paper' (--schedule paper)"
        )
    if config.schedule == "anchored" and no_density:
        raise IncompatibleSkill(
            f"skill '{spec.name}' has a noise-fed sampling network, whose density is unknown; "
            "use schedule 'paper' (--schedule paper), or pretrain it with sampler 'flow'"
        )


def started_agent(
    skill: Skill, task: Task, config: FinetuneConfig, seed: int, device: str
) -> Agent:
    """An agent initialised from the skill; raises what ``check_schedule`` does."""
    check_schedule(skill, config)
    spec, anchor = skill.spec, None
    arrays = skill.sampler.arrays()
    sizes = (spec.observation_size, spec.action_size)
    # A skill with a partly shrunk noise set may still have an anchor.
    prior = skill.sampler if config.schedule == "anchored" else skill.anchor
    if prior is not None:
        anchor = FlowSampler(spec.architecture, *sizes)
        anchor.load_arrays(prior.arrays())
        anchor.requires_grad_(False)
    alpha = config.temperature or spec.temperature
    symmetries = task.symmetries if config.symmetry else ()
    agent = Agent(spec.architecture, config, *sizes, alpha, seed, device, symmetries, anchor)
    agent.sampler.load_arrays(arrays)
    if config.schedule == "paper":
        agent.critic.load_arrays(skill.critic.arrays())
        agent.target_critic.load_arrays(skill.target_critic.arrays())
    else:
        with torch.no_grad():  # a constant Q, so that the policy starts as the skill
            for critic in (agent.critic, agent.target_critic):
                critic["out.weight"].zero_()
                critic["out.bias"].zero_()
    return agent


class Schedule:
    """Anneals alpha log-linearly and shrinks the fixed noise set linearly to one member (D.1)."""

    def __init__(self, config: FinetuneConfig, skill: Skill, seed: int, device: str) -> None:
        self.config = config
        self.start = config.temperature or skill.spec.temperature
        self.frozen = config.frozen_updates
        self.finite = skill.noise_set is not None
        if skill.noise_set is not None:  # keep the members that the skill was trained with
            noises = skill.noise_set[: config.noise_set]
        else:
            generator = torch.Generator().manual_seed(seed)
            noises = torch.randn(config.noise_set, skill.spec.action_size, generator=generator)
        self.noises = noises.to(device)
        self.full = len(self.noises)  # K_0
        if self.finite:
            self.full = max(config.noise_set, getattr(skill.spec.config, "noise_set", 1))

    def __call__(self, agent: Agent, steps: int) -> bool:
        """Set alpha, noise set and hand-over for this step; return whether the sampler learns."""
        config = self.config
        learned = max(0, steps - config.learning_starts)
        progress = min(1.0, learned / config.anneal_steps)
        agent.temperature = self.start * (config.final_temperature / self.start) ** progress
        begin = float("inf") if config.shrink_start is None else config.shrink_start
        if self.finite or learned >= begin:
            shrunk = min(1.0, max(0.0, learned - begin) / config.shrink_steps)
            size = max(1, round(len(self.noises) + (1 - len(self.noises)) * shrunk))
            agent.noise_set = self.noises[:size]
            agent.handover = (size - 1) / max(1, self.full - 1)
        return agent.updates >= self.frozen
