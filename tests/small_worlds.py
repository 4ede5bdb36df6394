"""Small environments for tests, registered on import: a point in a box, and misbehaving ones."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

STRIDE = 0.4  # how far the largest action moves the point
HILLS = {1: ([[0.6], [-0.6]], [1.0, 0.7]), 2: ([[0.5, 0.5], [-0.6, -0.2]], [1.0, 0.7])}
WIDTH = 0.15  # of a hill, as the variance of its bump
COST = 0.1  # per unit of squared action


def point_step(state: Any, action: Any) -> tuple[Any, Any]:
    """The next states [M, D] and rewards [M] of the point for states and scaled actions [M, D]."""
    centres, heights = HILLS[state.shape[1]]
    squared = np.square(state[:, np.newaxis] - np.array(centres)).sum(-1)
    reward = (np.array(heights) * np.exp(-squared / (2 * WIDTH))).sum(1)
    return np.clip(state + STRIDE * action, -1, 1), reward - COST * np.square(action).sum(1)


class Point(gymnasium.Env[Any, Any]):
    """A point in [-1, 1]^D that starts anywhere; it likes two smooth hills, one more."""

    def __init__(self, dimensions: int = 1) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (dimensions,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (dimensions,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, self.observation_space.shape)
        return self.state.astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        following, reward = point_step(self.state[np.newaxis], np.asarray(action)[np.newaxis])
        self.state = following[0]
        return self.state.astype(np.float32), float(reward[0]), False, False, {}


class Lopsided(gymnasium.Env[Any, Any]):
    """Actions of type float64 with bounds that are nowhere near +-1; it refuses all others."""

    LOW, HIGH = np.array([-0.1, -2.0]), np.array([0.3, 0.5])

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-10, 10, (3,), np.float64)
        self.action_space = gymnasium.spaces.Box(self.LOW, self.HIGH, dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 3)
        return self.state, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.dtype == np.float64
        assert self.action_space.contains(action), action
        return self.state, float(action[0] - action[1]), False, False, {}


class Broken(Point):
    """Behaves until the copy that was seeded with ``seed`` has made ``good_steps`` steps."""

    def __init__(self, what: str = "nan_obs", seed: int = 2, good_steps: int = 30) -> None:
        super().__init__()
        self.what, self.bad_seed, self.good_steps = what, seed, good_steps
        self.seeded, self.made = -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.seeded = self.seeded if seed is None else seed
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, *rest = super().step(action)
        self.made += 1
        if self.seeded == self.bad_seed and self.made > self.good_steps:
            if self.what == "nan_obs":
                obs = np.full_like(obs, np.nan)
            elif self.what == "inf_reward":
                reward = float("inf")
            elif self.what == "wrong_shape":
                obs = np.zeros(3, np.float32)
            else:
                raise RuntimeError("the wire came off")
        return obs, reward, *rest  # type: ignore[return-value]


class Strange(gymnasium.Env[Any, Any]):
    """Spaces of any kind, for being refused."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        self.observation_space, self.action_space = observation_space, action_space


class Errand(gymnasium.Env[Any, Any]):
    """Ends after ``length`` to ``length + 3`` steps; tells some of its facts late, or rarely."""

    observation_blocks: Any = (("clock", 1),)

    def __init__(
        self, length: int, weather: bool = False, declared: Any = None, model_hash: Any = None
    ) -> None:
        if length < 1:
            raise ValueError("length must be at least 1")
        self.length, self.model_hash = length, model_hash
        size = 2 if weather else 1
        self.observation_blocks = declared or (("clock", 1), ("weather", 1))[:size]
        self.observation_space = gymnasium.spaces.Box(-10, 10, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.end = 0, self.length + int(self.np_random.integers(4))
        return self._seen(), {"t": 0, "place": (0.0, 0.0), "late": -1.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        over = self.t == self.end
        info = {"t": self.t, "place": (float(self.t), 0.0), "never": np.nan}
        info |= {"is_success": 1.0} if over else {}
        info |= {"second": 2.0 if self.end % 2 else np.inf} if self.t == 2 else {}
        return self._seen(), 1.0, over, False, info

    def _seen(self) -> Any:
        return np.array([self.t, 0.5], np.float32)[: self.observation_space.shape[0]]  # type: ignore[index]


class Walk(gymnasium.Env[Any, Any]):
    """One metre east at every step, four or five of them; ``tell(t, over)`` is its info."""

    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, tell: Callable[[int, bool], dict[str, Any]]) -> None:
        self.tell = tell

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.end = 0, 4 + int(self.np_random.integers(2))
        return np.zeros(1, np.float32), self.tell(0, False)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        over = self.t == self.end
        return np.full(1, self.t, np.float32), 1.0, over, False, self.tell(self.t, over)


def _register() -> None:
    made = {
        "Line": (Point, {"dimensions": 1}),
        "Plane": (Point, {"dimensions": 2}),
        "Lopsided": (Lopsided, {}),
        "Broken": (Broken, {}),
        "Strange": (Strange, {}),
        "Errand": (Errand, {}),
        "Walk": (Walk, {}),
    }
    for name, (entry_point, kwargs) in made.items():
        gymnasium.register(
            f"SmallWorld/{name}-v0",
            entry_point=entry_point,
            kwargs=kwargs,
            max_episode_steps=20,
            disable_env_checker=True,
        )


_register()
