"""Skills whose energies are known in closed form, and a task for them; for tests of composition.

``Q(s, a) = level + slope . s - steep * sum_j |a_j - peak_j - (tilt s)_j|``, exactly what a hidden
layer of ReLUs can say. Whatever the dynamics, such a Q is soft-optimal for the reward
``Q(s, a) - gamma V(s')``, so that compositions of them have exact answers.
"""

from typing import Any

import gymnasium
import numpy as np

from skillbank.config import Architecture, PretrainConfig
from skillbank.skill import Skill
from skillbank.spec import ObservationBlock, SkillSpec, parameter_shapes

GAMMA, ALPHA = 0.8, 0.5


def peaked(
    name="a",
    peak=(0.0, 0.0),
    *,
    steep=1.0,
    level=0.0,
    slope=None,
    tilt=None,
    alpha=ALPHA,
    sampler="flow",
    **changes: Any,
):
    """A skill of that Q; its sampler is a broad Gaussian around the peak, not its policy."""
    peak = np.asarray(peak, float)
    size = len(peak)
    obs = 2 if slope is None and tilt is None else np.atleast_2d(slope if tilt is None else tilt)
    obs = obs if isinstance(obs, int) else obs.shape[1]
    shape = Architecture(
        critics=1,
        layer_norm=False,
        critic_hidden=(2 * size + 2,),
        sampler=sampler,
        sampler_hidden=(2 * size,),
        couplings=1,
        coupling_hidden=2,
    )
    spec = SkillSpec(
        **{
            "name": name,
            "temperature": alpha,
            "discount": GAMMA,
            "reward_scale": 1.0,
            "env_id": "skillbank-test/Drift-v0",
            "observation_blocks": (ObservationBlock(name="observation", size=obs),),
            "action_low": (-1.0,) * size,
            "action_high": (1.0,) * size,
            "action_dtype": "float64",
            "architecture": shape,
            "config": PretrainConfig(
                architecture=shape, objective="stein" if sampler == "noise" else "divergence"
            ),
            "seed": 0,
            "steps": 1,
            "updates": 1,
            **changes,
        }
    )
    obs = spec.observation_size
    p = {k: np.zeros(v, np.float32) for k, v in parameter_shapes(spec).items()}
    tilt = np.zeros((size, obs)) if tilt is None else np.asarray(tilt, float)
    slope = np.zeros(obs) if slope is None else np.asarray(slope, float)
    for part in ("critic", "target_critic"):
        first, bias = p[f"{part}/0.weight"][0], p[f"{part}/0.bias"][0, 0]
        last = p[f"{part}/out.weight"][0, :, 0]
        for j in range(size):
            for k, sign in enumerate((1.0, -1.0)):
                unit = 2 * j + k
                first[obs + j, unit], first[:obs, unit] = sign, -sign * tilt[j]
                bias[unit], last[unit] = -sign * peak[j], -steep
        for k, sign in enumerate((1.0, -1.0)):
            first[:obs, 2 * size + k], last[2 * size + k] = sign * slope, sign
        p[f"{part}/out.bias"][:] = level
    middle = np.arctanh(np.clip(peak, -0.95, 0.95))
    if sampler == "flow":
        p["sampler/head.bias"][:size] = middle
        p["sampler/head.bias"][size : 2 * size] = np.arctanh((np.log(0.7) + 1.5) / 3.5)
    else:
        for j in range(size):
            for k, sign in enumerate((1.0, -1.0)):
                p["sampler/0.weight"][obs + j, 2 * j + k] = sign
                p["sampler/out.weight"][2 * j + k, j] = 0.7 * sign
        p["sampler/out.bias"][:] = middle
    return Skill(spec, p)


def grid(size, cells=161):
    """Midpoints of the box [-1, 1]^d [M, d], and the log of a cell's volume."""
    line = (np.arange(cells) + 0.5) * 2.0 / cells - 1.0
    mesh = np.meshgrid(*[line] * size, indexing="ij")
    return np.stack([x.ravel() for x in mesh], 1), size * np.log(2.0 / cells)


def exact_value(skill, obs, alpha=None, cells=161):
    """Soft value by quadrature [B]."""
    alpha = alpha or skill.spec.temperature
    points, log_width = grid(skill.spec.action_size, cells)
    low, high = np.asarray(skill.spec.action_low), np.asarray(skill.spec.action_high)
    own = low + (points + 1.0) / 2.0 * (high - low)
    obs = np.asarray(obs, np.float32)
    q = skill.q(obs, np.broadcast_to(own, (len(obs), *own.shape))).astype(float)
    top = q.max(1, keepdims=True)
    return top[:, 0] + alpha * (np.log(np.exp((q - top) / alpha).sum(1)) + log_width)


class Drift(gymnasium.Env):
    """``s' = (s + a) / 2`` in one dimension; 20 steps, no end of its own, and a reward of s."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1.0, 1.0, 1)
        return self.place.astype(np.float32), {}

    def step(self, action):
        self.place = 0.5 * (self.place + np.clip(action, -1.0, 1.0))
        return self.place.astype(np.float32), float(self.place[0]), False, False, {}


gymnasium.register(id="skillbank-test/Drift-v0", entry_point=Drift, max_episode_steps=20)
