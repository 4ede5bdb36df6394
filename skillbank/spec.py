"""The metadata of a skill, and the name and shape of every parameter.

This module does not import torch: listing a bank and checking a file do not need it.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from skillbank.config import (
    Architecture,
    Count,
    FinetuneConfig,
    Positive,
    PretrainConfig,
    Strict,
)
from skillbank.errors import warn

MAX_NAME, MAX_TEXT = 128, 4096  # characters
Name = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
]
# No control characters and no bidirectional overrides: terminals would interpret them.
_CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
Text = Annotated[str, Field(max_length=MAX_TEXT, pattern=rf"^[^{_CONTROL}]*$")]
Line = Annotated[str, Field(max_length=MAX_TEXT, pattern=rf"^[^\t\n{_CONTROL}]*$")]
Label = Annotated[Line, Field(min_length=1, max_length=128)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Shape = tuple[int, ...]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _many(most: int, least: int = 0) -> Any:
    """Limit the number of entries of a list; validation stops at the first invalid entry."""
    return Field(min_length=least, max_length=most, fail_fast=True)


MAX_PARENTS = 64
Parents = Annotated[tuple[Sha256, ...], _many(MAX_PARENTS)]  # content hashes

# Keywords for running and rendering a task, which do not define the task; skills do not store them.
OF_GYMNASIUM = {
    *("self", "id", "env_id", "num_envs", "render_mode"),
    *("vectorization_mode", "vector_kwargs", "wrappers"),
}
_OF_OUR_TASKS = {"num_threads", "camera", "width", "height"}
Keyword = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# Strings must be names and numbers are bounded, so a file cannot pass paths or huge sizes to an
# environment.
Bounded = Field(ge=-1_000_000, le=1_000_000)
Setting = bool | Annotated[int, Bounded] | Annotated[float, Bounded] | Name | None
EnvKwargs = Annotated[
    dict[Keyword, Setting | Annotated[tuple[Setting, ...], _many(256)]],
    Field(max_length=64),
]


class ObservationBlock(Strict):
    """A named block of consecutive observation entries, for example ``velocity`` of size 3."""

    name: Name
    size: Annotated[int, Field(ge=1, le=65536)]


def block_columns(
    own: Sequence[ObservationBlock], theirs: Sequence[ObservationBlock]
) -> NDArray[np.int64] | None:
    """The column in ``theirs`` of each column of ``own``; None if a block is missing there."""
    starts, column = {}, 0
    for block in theirs:
        starts[block.name, block.size] = column
        column += block.size
    if any((block.name, block.size) not in starts for block in own):
        return None
    return np.concatenate([np.arange(b.size, dtype=np.int64) + starts[b.name, b.size] for b in own])


def blocks_text(blocks: Sequence[ObservationBlock]) -> str:
    """The blocks as text: ``velocity 3, position 2``."""
    return ", ".join(f"{block.name} {block.size}" for block in blocks)


Sign = Literal[-1, 1]


class Symmetry(Strict):
    """A symmetry of the task: signed permutations of observation and action.

    The transformed observation is ``obs[obs_index] * obs_sign``; likewise for actions.
    """

    name: Line
    obs_index: Annotated[tuple[int, ...], _many(65536, 1)]
    obs_sign: Annotated[tuple[Sign, ...], _many(65536, 1)]
    action_index: Annotated[tuple[int, ...], _many(4096, 1)]
    action_sign: Annotated[tuple[Sign, ...], _many(4096, 1)]

    @model_validator(mode="after")
    def _permutations(self) -> "Symmetry":
        for what in ("obs", "action"):
            index, sign = getattr(self, f"{what}_index"), getattr(self, f"{what}_sign")
            if sorted(index) != list(range(len(index))) or len(sign) != len(index):
                raise ValueError(f"{what}_index must be a permutation with a sign for each entry")
        return self


class CurvePoint(Strict):
    """One point of a learning curve."""

    steps: Annotated[int, Field(ge=0)]  # environment steps so far
    updates: Annotated[int, Field(ge=0)]  # gradient updates so far
    seconds: Annotated[float, Field(ge=0)]  # wall clock since the start
    mean_return: Finite  # undiscounted return of recent episodes
    temperature: Annotated[float, Field(ge=0)]  # alpha


class EvaluationRecord(Strict):
    """The result of an evaluation, as stored in the skill."""

    env_id: Line
    episodes: Count
    seed: Seed
    mean_return: Finite
    interval: tuple[Finite, Finite]  # 95 % bootstrap interval of the mean return
    metrics: dict[Label, Finite] = Field(
        default_factory=dict
    )  # e.g. net_distance (m), fallen, success


class SkillSpec(Strict):
    """Everything about a skill except its parameters.

    Densities, entropies and soft values are with respect to actions scaled to [-1, 1]^A.
    """

    name: Name
    description: Text = ""
    temperature: Positive  # alpha at which q is soft-optimal
    discount: Annotated[float, Field(gt=0, lt=1)]
    reward_scale: Positive
    reward: Line = ""  # description of its scaled reward, if that is not the task's own
    env_id: Line
    env_kwargs: EnvKwargs = Field(default_factory=dict)  # keyword arguments of its environment
    observation_blocks: Annotated[tuple[ObservationBlock, ...], _many(256, 1)]
    action_low: Annotated[tuple[Finite, ...], _many(4096, 1)]
    action_high: Annotated[tuple[Finite, ...], _many(4096, 1)]
    action_dtype: Literal["float32", "float64"]
    architecture: Architecture
    symmetries: Annotated[tuple[Symmetry, ...], _many(64)] = ()  # a random one applies per action
    anchored: bool = False  # q = critic + temperature * log-density of the anchor sampler
    noise_set: Annotated[int, Field(ge=0, le=65536)] = 0  # fixed noises xi_i; 0: fresh noise
    config: Annotated[PretrainConfig | FinetuneConfig, Field(union_mode="left_to_right")]
    seed: Seed
    steps: Annotated[int, Field(ge=0)]  # environment steps of its training
    updates: Annotated[int, Field(ge=0)]
    learning_curve: Annotated[tuple[CurvePoint, ...], _many(10_000)] = ()
    evaluations: Annotated[tuple[EvaluationRecord, ...], _many(1_000)] = ()
    parents: Parents = ()
    model_hash: Sha256 | None = None  # of the compiled simulation model
    versions: dict[Name, Line] = Field(default_factory=dict)  # of skillbank, mujoco, torch, ...
    license: Line = "MIT"

    @model_validator(mode="after")
    def _consistent(self) -> "SkillSpec":
        if len(self.action_low) != len(self.action_high):
            raise ValueError("action_low and action_high differ in length")
        if any(not low < high for low, high in zip(self.action_low, self.action_high, strict=True)):
            raise ValueError("action_low must be below action_high in every component")
        names = [block.name for block in self.observation_blocks]
        if len(set(names)) != len(names):
            raise ValueError("observation blocks must have different names")
        sizes = (self.observation_size, self.action_size)
        if any((len(s.obs_index), len(s.action_index)) != sizes for s in self.symmetries):
            raise ValueError("symmetries do not have the sizes of observation and action")
        for name in self.env_kwargs:
            if says_how_it_runs(self.env_id, name):
                raise ValueError(f"env_kwargs: {name} configures how a task is run, not the task")
        if self.anchored and self.architecture.sampler != "flow":
            raise ValueError("an anchor needs the density of sampler 'flow'")
        return self

    @property
    def task(self) -> str:
        """A readable name of its environment: ``skillbank/PointMassReach-v0, goals=left``."""
        lists = {k: v if isinstance(v, tuple) else (v,) for k, v in self.env_kwargs.items()}
        made = (f"{name}={'+'.join(map(str, values))}" for name, values in lists.items())
        return ", ".join([self.env_id, *made])

    @property
    def observation_size(self) -> int:
        """S, the length of the observation vector."""
        return sum(block.size for block in self.observation_blocks)

    @property
    def action_size(self) -> int:
        """A, the length of the action vector."""
        return len(self.action_low)


def kept_kwargs(env_id: str, kwargs: Mapping[str, Any]) -> EnvKwargs:
    """The keyword arguments of the environment that a skill stores.

    These are numbers, booleans, names, and lists and arrays of them; other values are dropped with
    a warning. Keywords for running and rendering the task are omitted.
    """
    kept: EnvKwargs = {}
    for name, value in kwargs.items():
        if says_how_it_runs(env_id, name):
            continue
        try:
            both = {**kept, name: _plain(value)}
            kept = TypeAdapter(EnvKwargs).validate_python(both, strict=True)
        except ValidationError:
            warn(
                f"a skill's file cannot keep {name}={value!r}, only numbers within 1,000,000 of "
                "zero, booleans, names (letters, digits and _.-), and lists of them: "
                "pass it again to evaluate or fine-tune the skill",
            )
    return kept


def says_how_it_runs(env_id: str, name: str) -> bool:
    """Whether a keyword of an environment says how it is run, not what the task is."""
    return name in OF_GYMNASIUM or (env_id.startswith("skillbank/") and name in _OF_OUR_TASKS)


def _plain(value: Any) -> Any:
    """Convert NumPy scalars and arrays to Python values, and lists to tuples."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(_plain(one) for one in value) if isinstance(value, list | tuple) else value


def critic_shapes(architecture: Architecture, observation: int, action: int) -> dict[str, Shape]:
    """Name and shape of the parameters of the C critics, which are stored as one batch."""
    count = architecture.critics
    shapes: dict[str, Shape] = {}
    inputs = observation + action  # the observation's columns come first
    for layer, units in enumerate(architecture.critic_hidden):
        shapes[f"{layer}.weight"] = (count, inputs, units)
        shapes[f"{layer}.bias"] = (count, 1, units)
        inputs = units
    shapes["out.weight"] = (count, inputs, 1)
    shapes["out.bias"] = (count, 1, 1)
    return shapes


def sampler_shapes(architecture: Architecture, observation: int, action: int) -> dict[str, Shape]:
    """Name and shape of the parameters of the sampling network."""
    shapes: dict[str, Shape] = {}
    noise_fed = architecture.sampler == "noise"
    inputs = observation + action if noise_fed else observation
    for layer, units in enumerate(architecture.sampler_hidden):
        shapes[f"{layer}.weight"] = (inputs, units)
        shapes[f"{layer}.bias"] = (units,)
        inputs = units
    if noise_fed:
        return shapes | {"out.weight": (inputs, action), "out.bias": (action,)}
    couplings, hidden = architecture.couplings, architecture.coupling_hidden
    heads = 2 * action + couplings * hidden  # mean, log-scale, and a bias for each coupling
    shapes |= {"head.weight": (inputs, heads), "head.bias": (heads,)}
    shapes["coupling.in"] = (couplings, action, hidden)
    shapes["coupling.out"] = (couplings, hidden, 2 * action)
    shapes["coupling.bias"] = (couplings, 2 * action)
    return shapes


def parameter_shapes(spec: SkillSpec) -> dict[str, Shape]:
    """Name and shape of every parameter of a skill; a file contains exactly these, as float32."""
    sizes = (spec.observation_size, spec.action_size)
    parts = {
        "critic": critic_shapes(spec.architecture, *sizes),
        "target_critic": critic_shapes(spec.architecture, *sizes),
        "sampler": sampler_shapes(spec.architecture, *sizes),
    }
    if spec.anchored:
        parts["anchor"] = sampler_shapes(spec.architecture, *sizes)
    shapes = {f"{part}/{name}": shape for part, own in parts.items() for name, shape in own.items()}
    if spec.noise_set:
        shapes["noise"] = (spec.noise_set, spec.action_size)
    return shapes
