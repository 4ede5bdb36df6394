"""Small skills for tests of files and banks, without torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skillbank import storage
from skillbank.config import Architecture, PretrainConfig
from skillbank.spec import ObservationBlock, SkillSpec, parameter_shapes

TINY = Architecture(
    critics=1, critic_hidden=(3,), sampler_hidden=(3,), couplings=1, coupling_hidden=2
)


def small_spec(**changes: Any) -> SkillSpec:
    values: dict[str, Any] = {
        "name": "small",
        "temperature": 0.1,
        "discount": 0.99,
        "reward_scale": 1.0,
        "env_id": "skillbank/QuadrupedRun-v0",
        "observation_blocks": (ObservationBlock(name="position", size=2),),
        "action_low": (-1.0, -1.0),
        "action_high": (1.0, 1.0),
        "action_dtype": "float32",
        "architecture": TINY,
        "noise_set": 2,
        "config": PretrainConfig(architecture=TINY),
        "seed": 0,
        "steps": 100,
        "updates": 10,
    }
    return SkillSpec(**(values | changes))


def random_parameters(spec: SkillSpec, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(spec)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


class FakeSkill:
    """As much of a skill as a bank needs to keep it."""

    def __init__(self, spec: SkillSpec, parameters: dict[str, NDArray[np.float32]]) -> None:
        self.spec = spec
        self.parameters = parameters
        self.content_hash = storage.content_hash(spec, parameters)

    def stored(self) -> tuple[SkillSpec, dict[str, NDArray[np.float32]]]:
        return self.spec, self.parameters


def small_skill(seed: int = 0, **changes: Any) -> FakeSkill:
    spec = small_spec(**changes)
    return FakeSkill(spec, random_parameters(spec, seed))
