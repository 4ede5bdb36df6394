"""Run Stable-Baselines3 on any task that a skill can learn, for comparisons.

Needs the extra ``skillbank[baselines]``. Stable-Baselines3 has a vector environment interface of
its own, so a task needs an adapter::

    from stable_baselines3 import SAC
    from skillbank.baselines import StableBaselinesTask
    model = SAC("MlpPolicy", StableBaselinesTask("QuadrupedRun")).learn(100_000)
    skillbank.evaluate(model, "QuadrupedRun", episodes=100)
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from skillbank.evaluation import final_info
from skillbank.task import Step, Task


class StableBaselinesTask(VecEnv):
    """N copies of a task as a Stable-Baselines3 ``VecEnv``, stepped together.

    When the episode of a copy ends, its ``info`` contains the keys that Stable-Baselines3 reads:
    ``terminal_observation``, ``TimeLimit.truncated``, ``episode`` (return, length, seconds since
    the start) and, for tasks with a goal, ``is_success``.

    Args:
        env_id: A Gymnasium id, or the bare name of one of skillbank's tasks.
        num_envs: N, the number of copies.
        kwargs: Keyword arguments of the environment.

    Raises:
        UnsupportedEnvironment: The id is unknown, or its spaces are not supported.
    """

    def __init__(self, env_id: str, num_envs: int = 1, **kwargs: Any) -> None:
        self.task = Task(env_id, num_envs, **kwargs)
        spaces = self.task.envs.single_observation_space, self.task.envs.single_action_space
        super().__init__(num_envs, *spaces)
        self.last_step: Step | None = None  # result of the latest step, with the task's info
        self._started = time.perf_counter()
        self._returns, self._lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)

    def reset(self) -> NDArray[np.float32]:
        """Reset all copies and return the first observations [N, S].

        The values of ``seed`` and ``set_options`` apply to the next reset only.
        """
        seed = self._seeds[0]  # copy i gets seed + i, the convention of Stable-Baselines3
        options = self._options[0]  # all copies share the options: they are one vector environment
        self._reset_seeds()
        self._reset_options()
        self._returns[:], self._lengths[:] = 0.0, 0
        return self.task.reset(seed=seed, options=options or None).numpy()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Store the actions [N, A], in the task's own units, for ``step_wait``."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step all copies; return observations, rewards, dones and infos."""
        step = self.last_step = self.task.step(self._actions, scaled=False)
        reward = step.reward.numpy()
        self._returns += reward
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if step.ended.any():
            success = final_info(step.info, step.ended).get("success")
            seconds = round(time.perf_counter() - self._started, 6)
            for copy in np.flatnonzero(step.ended):
                infos[copy] = {
                    "terminal_observation": step.next_obs[copy].numpy(),
                    "TimeLimit.truncated": not bool(step.terminated[copy]),
                    "episode": {
                        "r": float(self._returns[copy]),
                        "l": int(self._lengths[copy]),
                        "t": seconds,
                    },
                }
                if success is not None:
                    infos[copy]["is_success"] = bool(success[copy])
            self._returns[step.ended], self._lengths[step.ended] = 0.0, 0
        return step.obs.numpy(), reward, step.ended, infos

    def close(self) -> None:
        """Close the environment."""
        self.task.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """An image of each copy, or None for each if the task has no ``render_mode``."""
        pictures: Any = self.task.envs.render()
        return [None] * self.num_envs if pictures is None else list(pictures)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the vector environment, repeated for each requested copy."""
        value = getattr(self.task.envs.unwrapped, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not supported: the copies share one vector environment.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(
            f"'{attr_name}' cannot be set on single copies; pass it to StableBaselinesTask instead"
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment once; repeat its result per requested copy."""
        result = getattr(self.task.envs.unwrapped, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Always False: no copy is wrapped."""
        return [False for _ in self._get_indices(indices)]
