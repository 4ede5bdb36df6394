"""Configuration: one frozen model per stage, with two named presets, ``default`` and ``paper``.

Dimensions come from the environment, never from here. An unknown key is an error.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Widths = Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]


class Strict(BaseModel):
    """A frozen model in which an unknown key is an error; metadata is validated by it too."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Architecture(Strict):
    """Shape of the networks; with the sizes of observation and action it fixes every parameter."""

    critics: Annotated[int, Field(ge=1, le=4)] = 2  # soft Q-functions; their minimum is used
    critic_hidden: Widths = (256, 256)  # units of each hidden layer
    layer_norm: bool = True  # normalise each hidden layer of the critics before its ReLU
    sampler: Literal["flow", "noise"] = "flow"  # invertible, or the paper's noise-fed MLP
    sampler_hidden: Widths = (256, 256)  # units of the sampler's state trunk (flow) or MLP (noise)
    couplings: Annotated[int, Field(ge=0, le=16)] = 4  # affine coupling layers of the flow
    coupling_hidden: Count = 32  # hidden units of each coupling


class Learning(Strict):
    """What pretraining and fine-tuning have in common: how one update is made."""

    discount: Annotated[float, Field(gt=0, lt=1)] = 0.99  # gamma, per control step
    num_envs: Count = 16  # parallel simulations
    steps_per_update: Count = 8  # environment steps (over all copies) per gradient update
    batch_size: Count = 256  # transitions per update
    replay_capacity: Count = 1_000_000  # transitions
    critic_learning_rate: Positive = 1e-3  # ADAM
    sampler_learning_rate: Positive = 1e-3  # ADAM
    target_rate: Annotated[float, Field(gt=0, le=1)] = 0.02  # tau of each target update
    target_period: Count = 1  # updates between target updates
    objective: Literal["stein", "divergence", "map"] = "divergence"  # of the sampling network
    particles: Count = 8  # K = M, actions per state in the sampling network's update
    proposals: Literal["sampler", "uniform"] = "sampler"  # q of the soft value, eq. 10
    value_samples: Count = 4  # K_V, proposals per state for the soft value
    uniform_updates: Annotated[int, Field(ge=0)] = 0  # updates with uniform proposals, at first
    noise_sigma: NonNegative = 0.0  # Ornstein-Uhlenbeck noise added while collecting
    noise_theta: NonNegative = 0.15  # its pull towards zero, per step
    symmetry: bool = True  # apply the environment's declared symmetries to replayed data

    @model_validator(mode="after")
    def _consistent(self) -> "Learning":
        if self.batch_size > self.replay_capacity:
            raise ValueError("batch_size must not exceed replay_capacity")
        return self


class PretrainConfig(Learning):
    """Soft Q-learning from nothing (algorithm 1)."""

    architecture: Architecture = Architecture()
    temperature: Positive = 0.1  # alpha, in units of scaled reward
    reward_scale: Positive = 1.0  # rewards are multiplied by it
    total_steps: Count = 500_000  # environment steps over all copies
    learning_starts: Count = 5_000  # steps with uniform actions before the first update


class FinetuneConfig(Learning):
    """Fine-tuning of a skill on another task (appendix D.1, or anchored to the skill)."""

    schedule: Literal["anchored", "paper"] = "anchored"  # the prior: the skill, or uniform
    temperature: Positive | None = None  # alpha at the start; None: the skill's own
    final_temperature: Positive = 0.001  # alpha after annealing
    anneal_steps: Count = 100_000  # environment steps of log-linear annealing (20 epochs)
    noise_set: Count = 32  # K_xi at the start; shrinks linearly to 1 over anneal_steps
    reward_scale: Positive = 1.0  # rewards are multiplied by it
    total_steps: Count = 200_000  # environment steps over all copies
    learning_starts: Count = 5_000  # steps of the skill's own rollouts before the first update
    frozen_updates: Annotated[int, Field(ge=0)] = 1_000  # first updates with the sampler frozen
