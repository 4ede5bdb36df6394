"""Configuration: one frozen model per stage, with two named presets, ``default`` and ``paper``.

Dimensions come from the environment, never from here. An unknown key is an error.
"""

from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import gymnasium
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from skillbank.errors import InvalidArgument, UnsupportedEnvironment, did_you_mean

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Preset = Literal["default", "paper"]
Schedule = Literal["anchored", "paper"]
Width = Annotated[int, Field(ge=1, le=1 << 20)]
Widths = Annotated[  # a list is accepted too
    tuple[Width, ...], Field(min_length=1, max_length=8, fail_fast=True, strict=False)
]
AS_READ = object()  # validation context in which only the given fields count as set


class Strict(BaseModel):
    """A frozen model in which an unknown key is an error; also the base of the metadata models.

    Only fields that are set are written as metadata. All fields of a new model count as set; of a
    model validated in the context ``AS_READ``, only the given ones. So metadata that is read and
    written again is unchanged, even if this release has additional fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def model_post_init(self, context: Any, /) -> None:
        """Mark all fields as set, unless the model is read from a file."""
        if context is not AS_READ:
            self.__pydantic_fields_set__.update(type(self).model_fields)

    def changed(self, **changes: Any) -> Self:
        """A validated copy with some fields changed.

        Raises:
            pydantic.ValidationError: A field does not exist, or a value is invalid.
        """
        return type(self).model_validate(dict(self) | changes)

    def flat(self) -> dict[str, Any]:
        """All fields as JSON, those of a nested model by path: ``architecture.critics``."""
        return _flattened(self.model_dump(mode="json"))


def _flattened(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        nested = isinstance(value, dict)
        found |= _flattened(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def first_problem(error: ValidationError) -> str:
    """Where and what is wrong, of a model's first problem; ASCII, and without the wrong value."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{ascii('.'.join(map(str, first['loc'])))[1:-1] or 'document'}: {first['msg']}"


class Architecture(Strict):
    """Architecture of the networks; with S and A it determines the shape of every parameter."""

    critics: Annotated[int, Field(ge=1, le=4)] = 2  # soft Q-functions; their minimum is used
    critic_hidden: Widths = (200, 200)  # units of each hidden layer
    layer_norm: bool = True  # layer normalisation before each ReLU of the critics
    sampler: Literal["flow", "noise"] = "flow"  # invertible flow, or the paper's noise-fed MLP
    sampler_hidden: Widths = (200, 200)  # units of the sampler's state trunk (flow) or MLP (noise)
    couplings: Annotated[int, Field(ge=0, le=16)] = 4  # affine coupling layers of the flow
    coupling_hidden: Width = 32  # hidden units of each coupling


class Learning(Strict):
    """Hyperparameters of data collection and updates, common to pretraining and fine-tuning."""

    discount: Annotated[float, Field(gt=0, lt=1)] = 0.99  # gamma, per control step
    num_envs: Count = 16  # parallel simulations
    steps_per_update: Count = 8  # environment steps (over all copies) per gradient update
    batch_size: Count = 256  # transitions per update
    replay_capacity: Count = 1_000_000  # transitions
    n_step: Annotated[int, Field(ge=1, le=100)] = 1  # rewards per target; above 1, values
    # propagate faster but are biased: off-policy, and without the entropy of the steps between
    n_step_until: Count | None = None  # environment steps after which targets are one-step
    critic_learning_rate: Positive = 1e-3  # ADAM
    sampler_learning_rate: Positive = 1e-3  # ADAM
    target_rate: Annotated[float, Field(gt=0, le=1)] = 0.02  # tau of each target update
    target_period: Count = 1  # updates between target updates
    objective: Literal["stein", "divergence", "map"] = "divergence"  # sampling network's objective
    particles: Count = 1  # K = M, actions per state in the sampling network's update
    proposals: Literal["sampler", "uniform"] = "sampler"  # q of the soft value, eq. 10
    value_samples: Count = 4  # K_V, proposals per state for the soft value. Few estimate it low;
    # 1 gives the entropy-regularised value of the sampling network itself, which is low by
    # alpha KL(sampler || exp(Q / alpha))
    uniform_updates: Annotated[int, Field(ge=0)] = 0  # initial updates with uniform proposals
    noise_sigma: NonNegative = 0.0  # scale of the Ornstein-Uhlenbeck noise added to actions
    noise_theta: NonNegative = 0.15  # mean reversion of that noise per control step
    reward_scale: Positive = 1.0  # factor on rewards
    precision: Literal["single", "mixed"] = "single"  # mixed: large matrix products in bfloat16,
    # which is faster only on processors with bfloat16 instructions
    symmetry: bool = True  # apply the task's declared symmetries to replayed data and when acting

    total_steps: Count = 250_000  # environment steps over all copies
    learning_starts: Annotated[int, Field(ge=0)] = 5_000  # steps before the first update

    @model_validator(mode="after")
    def _consistent(self) -> "Learning":
        if self.learning_starts >= self.total_steps:
            raise ValueError(
                "learning_starts must be below total_steps: nothing would be learned "
                "(skillbank.shortened(config, steps), or --steps, scales both)"
            )
        if self.batch_size > self.replay_capacity:
            raise ValueError("batch_size must not exceed replay_capacity")
        if self.num_envs * self.n_step > self.replay_capacity:
            raise ValueError("num_envs * n_step must not exceed replay_capacity")
        if self.objective == "map" and self.proposals == "sampler":
            raise ValueError(
                "objective 'map' needs proposals 'uniform': a sampler that collapses to a point "
                "cannot estimate the soft value"
            )
        return self


class PretrainConfig(Learning):
    """Soft Q-learning from scratch (algorithm 1); the first actions are uniform."""

    architecture: Architecture = Architecture()
    temperature: Positive = 0.1  # alpha of the skill, in units of scaled reward
    first_temperature: Positive | None = None  # initial alpha, annealed log-linearly to the skill's
    # over the first half of the steps; None: the skill's throughout
    level_critics: bool = False  # initialise the critics to the level that the first rewards imply

    @model_validator(mode="after")
    def _trainable(self) -> "PretrainConfig":
        if self.architecture.sampler == "noise" and self.objective == "divergence":
            raise ValueError(
                "objective 'divergence' needs the density of sampler 'flow'; "
                "a noise-fed sampler is trained with objective 'stein'"
            )
        return self


class FinetuneConfig(Learning):
    """Fine-tuning of a skill on another task; the first actions are the skill's own."""

    schedule: Schedule = "anchored"  # the prior: the skill (anchored), or uniform (paper)
    temperature: Positive | None = None  # alpha at the start; None: the skill's own
    final_temperature: Positive = 0.005  # alpha after annealing
    anneal_steps: Count = 100_000  # environment steps of log-linear annealing
    noise_set: Count = 32  # K_xi, size of the fixed noise set before it shrinks to one
    shrink_start: Annotated[int, Field(ge=0)] | None = 0  # environment steps with fresh noise
    # before the noise set is used; None: always fresh noise
    shrink_steps: Count = 100_000  # environment steps of linear shrinking
    frozen_updates: Annotated[int, Field(ge=0)] = 1_000  # initial updates with the sampler frozen,
    # rounded up to a step of all copies

    @model_validator(mode="after")
    def _follows_the_prior(self) -> "FinetuneConfig":
        if self.schedule == "anchored" and self.objective == "map":
            raise ValueError(
                "objective 'map' ignores the prior of schedule 'anchored'; use 'paper'"
            )
        return self


Config = TypeVar("Config", bound=Learning)


def noise_fed(learning: Config) -> Config:
    """The configuration adapted to the paper's noise-fed network.

    Only the density of one branch of that network is known (appendix C.2), so it is trained by the
    Stein direction, and the proposals of the soft value are uniform.
    """
    changes = {
        "objective": "stein" if learning.objective == "divergence" else learning.objective,
        "particles": max(16, learning.particles),
        "proposals": "uniform",
        "value_samples": max(16, learning.value_samples),
    }
    return learning.model_copy(update=changes)


COUNTED_IN_STEPS = ("anneal_steps", "shrink_start", "shrink_steps", "n_step_until")
# Fields that ``shortened`` changes.
PLANNED = ("total_steps", "learning_starts", "frozen_updates", *COUNTED_IN_STEPS)


def shortened(config: Config, steps: int) -> Config:
    """The configuration with ``total_steps=steps`` and its step counts scaled in proportion.

    There are two exceptions: ``learning_starts`` keeps its value, but is at most a quarter of the
    steps, and ``frozen_updates`` keeps its value, but is at most a quarter of the updates.
    """
    share = steps / config.total_steps
    changes: dict[str, int] = {
        "total_steps": steps,
        "learning_starts": min(config.learning_starts, steps // 4),
    }
    for name in COUNTED_IN_STEPS:
        counted = getattr(config, name, None)
        if counted is not None:
            changes[name] = max(min(1, counted), round(counted * share))
    if isinstance(config, FinetuneConfig):
        updates = (steps - changes["learning_starts"]) // config.steps_per_update
        changes["frozen_updates"] = min(config.frozen_updates, updates // 4)
    return config.changed(**changes)


# The constants of appendix D.1, common to pretraining and fine-tuning. (D.1 updates the swimmer's
# targets every 5000 epochs, but trains for 500 only; here the target period is that of the others.)
_PAPER: dict[str, Any] = {
    "num_envs": 1,
    "steps_per_update": 1,
    "batch_size": 64,
    "replay_capacity": 1_000_000,
    "learning_starts": 10_000,
    "critic_learning_rate": 1e-3,
    "sampler_learning_rate": 1e-4,
    "target_rate": 1.0,
    "target_period": 1_000,
    "objective": "stein",
    "particles": 32,
    "value_samples": 50,
    "uniform_updates": 0,
    "proposals": "uniform",
    "noise_sigma": 0.3,
    "noise_theta": 0.15,
    "symmetry": False,
}
EPOCH = 10_000  # environment steps of an epoch (appendix D.1)

# The four goals must be found by the sampling network, not by drawing a symmetry. With the reward
# scaled by 0.1, alpha 1 corresponds to alpha 10 of D.1.
_MULTI_GOAL: dict[str, Any] = {"temperature": 1.0, "reward_scale": 0.1, "symmetry": False}


def recipe(env_id: str, preset: Preset = "default") -> PretrainConfig:
    """The default configuration for pretraining on a task.

    Raises:
        UnsupportedEnvironment: The task is unknown.
        InvalidArgument: The preset is unknown.
    """
    bare = _known(env_id, preset)
    if preset == "paper":
        network = Architecture(
            critics=1,
            layer_norm=False,
            sampler="noise",
            critic_hidden=(200, 200),
            sampler_hidden=(200, 200),
        )
        paper = _PAPER | {
            "architecture": network,
            "level_critics": False,
            "temperature": 0.1,
            "total_steps": 500 * EPOCH,
        }
        if bare == "MultiGoal":
            paper |= _MULTI_GOAL | {"particles": 100, "total_steps": 100 * EPOCH}
        return PretrainConfig(**paper)
    return PretrainConfig(**_DEFAULTS.get(bare, {}))


def finetune_recipe(
    env_id: str, preset: Preset = "default", schedule: Schedule | None = None
) -> FinetuneConfig:
    """The default configuration for fine-tuning a skill on a task.

    Args:
        env_id: The task.
        preset: ``default``, or ``paper`` for the constants of appendix D.1.
        schedule: None selects the one that performed better on the task.

    Raises:
        UnsupportedEnvironment: The task is unknown.
        InvalidArgument: The preset is unknown.
    """
    bare = _known(env_id, preset)
    if preset == "paper":
        changes = {
            "schedule": schedule or "paper",
            "final_temperature": 0.001,
            "anneal_steps": 20 * EPOCH,
            "shrink_steps": 20 * EPOCH,
            "total_steps": 200 * EPOCH,
            "frozen_updates": 0,
        }
        return FinetuneConfig(**_PAPER | changes)
    known = _FINETUNE.get(bare, {})
    schedule = schedule or known.get("schedule", "anchored")
    if schedule == "paper":  # train on from the skill's own alpha, without freezing the sampler
        known = known | {"temperature": None, "frozen_updates": 0}
    return FinetuneConfig(**known | {"schedule": schedule})


def _known(env_id: str, preset: str) -> str:
    """The bare name of a task, after a check of it and of the preset."""
    if preset not in get_args(Preset):
        raise InvalidArgument(f"no preset {preset!r}; there is: {', '.join(get_args(Preset))}")
    return bare_name(resolve(env_id))


def bare_name(env_id: str) -> str:
    """``QuadrupedRun`` of ``skillbank/QuadrupedRun-v0``."""
    return env_id.removeprefix("skillbank/").removesuffix("-v0")


def _core(env_id: str) -> str:
    """``reach`` of ``mine/Reach-v0``."""
    return env_id.rpartition("/")[2].rsplit("-v", 1)[0].lower()


def resolve(env_id: str) -> str:
    """The full id of an environment, from its id or the bare name of one of skillbank's tasks.

    Raises:
        UnsupportedEnvironment: No such environment; the message suggests similar names.
    """
    if not isinstance(env_id, str):
        spec = getattr(env_id, "spec", None)
        hint = f": '{spec.id}'" if spec else ", as in 'Pendulum-v1'; register yours to have one"
        raise UnsupportedEnvironment(
            f"skillbank makes the copies of the environment itself: give its Gymnasium id{hint}, "
            f"not {env_id!r}"
        )
    for candidate in (env_id, f"skillbank/{env_id}", f"skillbank/{env_id}-v0"):
        if candidate in gymnasium.registry:
            return candidate
    ours = [known for known in gymnasium.registry if known.startswith("skillbank/")]
    bare = [bare_name(known) for known in ours]
    hint = did_you_mean(bare_name(env_id), [*bare, *gymnasium.registry])
    module, colon, bare_id = env_id.partition(":")
    alike = [known for known in gymnasium.registry if _core(known) == _core(env_id)]
    if alike:  # only namespace, version or case differ
        hint = f" Did you mean '{alike[-1]}'?"
    if colon:
        raise UnsupportedEnvironment(
            f"no environment '{env_id}': first 'import {module}', then give '{bare_id}'"
        )
    raise UnsupportedEnvironment(
        f"no environment '{env_id}'.{hint} skillbank has: {', '.join(sorted(bare))}. "
        f"If a module of yours registers it: --env MODULE:{env_id}, or --env MODULE: for the task "
        "that a skill was trained on, or set SKILLBANK_TASKS=MODULE; in Python, import it first"
    )


# Default recipes of skillbank's tasks: the fields that differ from the defaults.
# Episodes of running do not terminate, so the first rewards predict the level of the values. A
# low initial temperature lets the body learn to move in a third of the time.
_RUN: dict[str, Any] = {
    "total_steps": 325_000,
    "value_samples": 1,
    "level_critics": True,
    "first_temperature": 0.02,
}
# Two routes look equally good for a long time, but one is better. Entropy keeps both open at first,
# and must not exceed a reward of a few hundredths per step at the end. The minimum of two critics
# would undervalue the route that is taken less often.
_MAZE_FROM_NOTHING: dict[str, Any] = _RUN | {
    "architecture": Architecture(critics=1),
    "total_steps": 400_000,
    "first_temperature": 0.1,
    "temperature": 0.02,
}
# The point mass takes a quarter of a minute.
_POINT_MASS: dict[str, Any] = {
    "architecture": Architecture(
        critic_hidden=(64, 64), sampler_hidden=(64, 64), couplings=2, coupling_hidden=16
    ),
    "discount": 0.95,
    "batch_size": 128,
    "replay_capacity": 100_000,
    "target_rate": 0.05,
    "total_steps": 24_000,
    "learning_starts": 1_000,
}
_POINT_MASS_IN_A_MAZE: dict[str, Any] = _POINT_MASS | {
    "discount": 0.98,
    "temperature": 0.02,
    "noise_sigma": 0.5,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "MultiGoal": _MULTI_GOAL | {"total_steps": 40_000, "learning_starts": 2_000},
    "QuadrupedRun": _RUN,
    "QuadrupedRunToward": _RUN | {"first_temperature": None},  # as for the shipped skills
    "QuadrupedHallwayWide": _RUN,
    "QuadrupedHallwayNarrow": _RUN,
    "QuadrupedUMaze": _MAZE_FROM_NOTHING,
    "QuadrupedMaze": _MAZE_FROM_NOTHING,
    # A high initial temperature keeps both directions open until the finish line is found.
    "SwimmerFinishLine": {"first_temperature": 3.0, "level_critics": True},
    "PointMassRun": _POINT_MASS | {"level_critics": True},
    # These skills are made for composition, which visits states that a skill alone would not. The
    # noise trains their Q-functions on such states.
    "PointMassRunToward": _POINT_MASS | {"level_critics": True, "noise_sigma": 0.5},
    "PointMassReach": _POINT_MASS | {"noise_sigma": 0.5},  # too far for random actions
    "PointMassHallway": _POINT_MASS | {"level_critics": True},
    "PointMassUMaze": _POINT_MASS_IN_A_MAZE,
    "PointMassMaze": _POINT_MASS_IN_A_MAZE,
}
# Fine-tuning updates more often than pretraining: from a skill, few environment steps suffice.
_HALLWAY: dict[str, Any] = {
    "schedule": "paper",  # the reward does not change, so the skill's Q is a good start
    "total_steps": 40_000,
    "steps_per_update": 2,
    "learning_starts": 1_000,
    "value_samples": 1,
    "final_temperature": 0.01,
    "anneal_steps": 23_000,
    "shrink_start": 23_000,
    "shrink_steps": 11_000,
}
_MAZE: dict[str, Any] = {
    "schedule": "anchored",  # the prior preserves the gait where the reward is near zero
    "total_steps": 60_000,
    "steps_per_update": 2,
    "learning_starts": 1_500,
    "frozen_updates": 500,
    "value_samples": 2,
    "n_step": 4,  # the reward at the target is about 160 steps from the start
    "n_step_until": 30_000,
    "temperature": 0.05,
    "final_temperature": 0.005,
    "anneal_steps": 52_000,
    "shrink_start": None,  # a deterministic policy gets stuck in corners
}
_POINT_MASS_TUNED: dict[str, Any] = {
    "batch_size": 128,
    "replay_capacity": 100_000,
    "target_rate": 0.05,
    "total_steps": 12_000,
    "steps_per_update": 4,
    "learning_starts": 500,
    "frozen_updates": 50,
    "final_temperature": 0.01,
    "anneal_steps": 6_000,
    "shrink_start": None,
}
_POINT_MASS_TUNED_IN_A_MAZE: dict[str, Any] = _POINT_MASS_TUNED | {
    "total_steps": 16_000,
    "value_samples": 2,
    "n_step": 4,
    "n_step_until": 8_000,
    "temperature": 0.05,
    "final_temperature": 0.002,
    "anneal_steps": 12_000,
}
_FINETUNE: dict[str, dict[str, Any]] = {
    "QuadrupedHallwayWide": _HALLWAY,
    "QuadrupedHallwayNarrow": _HALLWAY,
    "QuadrupedUMaze": _MAZE,
    "QuadrupedMaze": _MAZE,
    "PointMassRun": _POINT_MASS_TUNED,
    "PointMassRunToward": _POINT_MASS_TUNED,
    "PointMassReach": _POINT_MASS_TUNED,
    "PointMassHallway": _POINT_MASS_TUNED | {"shrink_start": 6_000, "shrink_steps": 3_000},
    "PointMassUMaze": _POINT_MASS_TUNED_IN_A_MAZE,
    "PointMassMaze": _POINT_MASS_TUNED_IN_A_MAZE,
}
