"""Fine-tuning: a skill on another task, by the paper's schedule or anchored to the skill.

Both anneal alpha log-linearly and shrink a fixed noise set to one member (appendix D.1).

``paper``: the skill's Q-function and sampling network go on learning on the new reward.

``anchored``: the skill is the prior. The objective is ``r - alpha KL(pi || pi_0)`` with pi_0 the
skill's sampling distribution, whose density is exact; the task's Q starts at zero, so that step 0
*is* the skill; ``V(s) = alpha log E_{a ~ pi_0} exp(Q(s, a) / alpha)`` and pi is proportional to
``pi_0 exp(Q / alpha)``.

The hand-over from densities to the finite noise set: a finite set has no density. The log-weights
of the soft value (log prior - log q) and the entropy in the sampling network's objective are
multiplied by ``lambda = (K_xi - 1) / (K_0 - 1)``, which falls with the set from 1 to 0. At 1 the
estimate is eq. 10; at 0 it is ``alpha log mean_i exp(Q(s, f(xi_i; s)) / alpha)``, the soft value
of the set; in between each member that goes moves it by O(1 / K_xi), so that nothing jumps but
what the last few members differ by. (With uniform proposals, as in preset ``paper``, the soft value
stays that of the whole box.)
"""

import warnings
from typing import Any

import torch

from skillbank.agent import Agent
from skillbank.config import FinetuneConfig, Preset, finetune_recipe, noise_fed
from skillbank.config import Schedule as ScheduleName
from skillbank.errors import IncompatibleSkill, SkillbankError
from skillbank.evaluation import check_policy
from skillbank.networks import FlowSampler, Sampler
from skillbank.pretraining import check_run, finished_skill
from skillbank.skill import Skill
from skillbank.spec import SkillSpec
from skillbank.task import Task, resolve
from skillbank.training import Hooks, Training


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
    """Learn a task from a skill.

    Args:
        skill: Where to start; not changed. Observation blocks that it does not know enter at zero
            weight.
        env_id: A Gymnasium id, or the bare name of one of skillbank's tasks.
        config: How; None takes the recipe of the task, in the skill's own units.
        seed: Of the simulation and all sampling.
        name: Of the new skill; None: the skill's with the task's.
        device: ``cpu``, ``cuda``, ...
        hooks: Progress, stopping, checkpoints.
        env_kwargs: For the environment.

    Raises:
        IncompatibleSkill: The skill does not fit the task, or has no density to be anchored to.
        UnsupportedEnvironment: Unknown id, spaces that cannot be learned on, or a bad step.
        pydantic.ValidationError: The name cannot be.
        Interrupted: The hooks stopped it.
    """
    seed = check_run(seed, device)
    env_id = resolve(env_id)
    check_policy(skill)
    if not isinstance(skill, Skill):
        raise IncompatibleSkill(f"{skill!r} is not a skill; distill() makes one of a composition")
    if not isinstance(config, FinetuneConfig | None):
        raise SkillbankError(
            "a skill is fine-tuned by a FinetuneConfig, as finetuning.recipe_for(skill.spec, "
            f"env_id) makes, not by {type(config).__name__}"
        )
    config = recipe_for(skill.spec, env_id) if config is None else config
    for unit in ("discount", "reward_scale"):
        own, asked = getattr(skill.spec, unit), getattr(config, unit)
        if config.schedule == "paper" and own != asked:
            warnings.warn(
                f"the Q-function of '{skill.spec.name}' is for {unit} {own}, not {asked}, and will "
                "have to be unlearned; finetuning.recipe_for(skill.spec, task) is in its units",
                stacklevel=2,
            )
    updates = (config.total_steps - config.learning_starts) // config.steps_per_update
    at_once = max(1, config.num_envs // config.steps_per_update)
    if 0 < updates <= -(-config.frozen_updates // at_once) * at_once:
        warnings.warn(
            f"the policy will stay as it is: all {updates} updates are within the first "
            f"frozen_updates={config.frozen_updates}; take fewer, or more steps",
            stacklevel=2,
        )
    task = Task(env_id, config.num_envs, **(env_kwargs or {}))
    start = skill.fitted_to(task)
    parents = skill.as_parents()
    training = Training(
        started_agent(start, task, config, seed, device),
        task,
        config,
        seed=seed,
        schedule=Schedule(config, start, seed, device),
        warm=True,
        level=config.schedule == "anchored",
        parent=parents[0],
    )
    bare = task.env_id.split("/")[-1].rsplit("-v", 1)[0]
    name = name or f"{skill.spec.name}.{bare}"
    try:
        finished_skill(training, config, name=name, parents=parents)  # what cannot be, now
        training.run(hooks or Hooks())
    finally:
        task.close()
    return finished_skill(training, config, name=name, parents=parents)


def recipe_for(
    spec: SkillSpec, env_id: str, preset: Preset = "default", schedule: ScheduleName | None = None
) -> FinetuneConfig:
    """How a skill is fine-tuned on a task when nothing else is said.

    The task's recipe in the skill's own units: Q and alpha are those of its scaled reward. What
    has a noise-fed network goes by the paper's schedule, for its density is not known.
    """
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


def started_agent(
    skill: Skill, task: Task, config: FinetuneConfig, seed: int, device: str
) -> Agent:
    """An agent whose policy is the skill."""
    spec, anchor = skill.spec, None
    if spec.architecture.sampler == "noise" and config.objective == "divergence":
        raise IncompatibleSkill(
            f"skill '{spec.name}' has a noise-fed sampling network, which has no density for "
            "objective 'divergence'; use schedule 'paper' with objective 'stein' and proposals "
            "'uniform'"
        )
    arrays = skill.sampler.arrays()
    sizes = (spec.observation_size, spec.action_size)
    if config.schedule == "paper" and spec.anchored and skill.noise_set is None:
        raise IncompatibleSkill(
            f"skill '{spec.name}' is anchored to the one it came from, and its critic alone does "
            "not say what it does; use schedule 'anchored'"
        )
    if config.schedule == "anchored":
        if skill.noise_set is not None:
            raise IncompatibleSkill(
                f"skill '{spec.name}' acts by a finite noise set, which has no density to be "
                "anchored to; use schedule 'paper'"
            )
        if spec.architecture.sampler != "flow":
            raise IncompatibleSkill(
                f"skill '{spec.name}' has a noise-fed sampling network, whose density is unknown; "
                "use schedule 'paper', or pretrain it with sampler 'flow'"
            )
        prior: Sampler | None = skill.sampler
    else:  # half handed over: with the prior that is left
        prior = skill.anchor
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
        with torch.no_grad():  # the task's Q starts at zero: step 0 is the skill
            for critic in (agent.critic, agent.target_critic):
                critic["out.weight"].zero_()
                critic["out.bias"].zero_()
    return agent


class Schedule:
    """alpha log-linear to its end, and the fixed noise set shrinking linearly to one (D.1)."""

    def __init__(self, config: FinetuneConfig, skill: Skill, seed: int, device: str) -> None:
        self.config = config
        self.start = config.temperature or skill.spec.temperature
        self.frozen = config.frozen_updates
        self.finite = skill.noise_set is not None
        if skill.noise_set is not None:  # goes on with the members that it has learned
            noises = skill.noise_set[: config.noise_set]
        else:
            generator = torch.Generator().manual_seed(seed)
            noises = torch.randn(config.noise_set, skill.spec.action_size, generator=generator)
        self.noises = noises.to(device)
        self.full = len(self.noises)  # K_0
        if self.finite:
            self.full = max(config.noise_set, getattr(skill.spec.config, "noise_set", 1))

    def __call__(self, agent: Agent, steps: int) -> bool:
        """Set alpha, noise set and hand-over for this step; says whether the sampler learns."""
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
