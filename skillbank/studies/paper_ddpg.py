"""Stable-Baselines3's DDPG with the constants of the paper's appendix D.1.

Networks, replay, noise, collection and optimisers are the library's. What differs from it:

- Hard copies of both target networks at a fixed interval, instead of Polyak updates.
- Separate learning rates of critic and actor, set on the optimisers: the library has one schedule.
- Ornstein-Uhlenbeck noise with ``dt = 1``, per step; with the library's 0.01 it would change a
  tenth as much in a step, and fade a hundred times more slowly.

The update computes the same as the library's, with gradients written out, in half the time:
baselines dominate the run time of a study. A test checks that both give the same numbers.
"""

from typing import Any

import numpy as np
import torch
from stable_baselines3 import DDPG
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.utils import polyak_update
from torch import Tensor, nn

from skillbank.baselines import StableBaselinesTask
from skillbank.studies.unit import RivalConfig

threshold_backward = torch.ops.aten.threshold_backward  # relu's mask


class PaperDDPG(DDPG):
    """DDPG with hard target copies, two learning rates and, where it is pretrained, a warm start.

    Args:
        config: The constants.
        envs: The task.
        seed: Seeds everything.
        warm: Act by the policy from the first step on, without a phase of uniform actions.
    """

    def __init__(
        self, config: RivalConfig, envs: StableBaselinesTask, seed: int, warm: bool
    ) -> None:
        self._config, self._warm = config, warm
        shape = envs.action_space.shape
        assert shape is not None
        noise = OrnsteinUhlenbeckActionNoise(
            np.zeros(shape), np.full(shape, config.noise_sigma), config.noise_theta, dt=1.0
        )
        super().__init__(
            "MlpPolicy",
            envs,
            action_noise=VectorizedActionNoise(noise, envs.num_envs),
            **library_settings(config, seed),
        )
        for group in self.actor.optimizer.param_groups:
            group["lr"] = config.actor_learning_rate

    def _sample_action(self, learning_starts: int, *args: Any, **kwargs: Any) -> Any:
        return super()._sample_action(0 if self._warm else learning_starts, *args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Make updates, and copy the networks to the targets after every ``target_period``."""
        for _ in range(gradient_steps):
            self._update(batch_size)
            self._n_updates += 1
            if self._n_updates % max(1, self._config.target_period) == 0:
                rate = self._config.target_rate
                polyak_update(self.critic.parameters(), self.critic_target.parameters(), rate)
                polyak_update(self.actor.parameters(), self.actor_target.parameters(), rate)

    @torch.no_grad()
    def _update(self, batch_size: int) -> None:
        """One step of the critic, then one of the actor on the updated critic."""
        replay = self.replay_buffer
        assert replay is not None
        obs, action, next_obs, ended, reward, *_ = replay.sample(batch_size)
        actor, critic = _Layers(self.actor.mu), _Layers(self.critic.q_networks[0])
        next_action = _Layers(self.actor_target.mu)(next_obs).tanh_()
        next_q = _Layers(self.critic_target.q_networks[0])(torch.cat((next_obs, next_action), 1))
        target = reward + (1.0 - ended) * self.gamma * next_q

        q = critic(torch.cat((obs, action), 1))
        critic.of_parameters((q - target) * (2.0 / batch_size))
        self.critic.optimizer.step()

        action = actor(obs).tanh_()
        q = critic(torch.cat((obs, action), 1))
        daction = critic.of_input(torch.full_like(q, -1.0 / batch_size))[:, obs.shape[1] :]
        actor.of_parameters(daction * (1.0 - action.square()))
        self.actor.optimizer.step()


class _Layers:
    """Linear layers with relu between them, and the gradients of their latest output [B, out]."""

    def __init__(self, network: nn.Module) -> None:
        self.linear = [layer for layer in network.children() if isinstance(layer, nn.Linear)]

    def __call__(self, x: Tensor) -> Tensor:
        self.inputs = [x]
        for layer in self.linear[:-1]:
            self.inputs.append(torch.addmm(layer.bias, self.inputs[-1], layer.weight.t()).relu_())
        last = self.linear[-1]
        return torch.addmm(last.bias, self.inputs[-1], last.weight.t())

    def of_parameters(self, dout: Tensor) -> None:
        """Set every parameter's gradient."""
        for index in range(len(self.linear) - 1, -1, -1):
            layer, x = self.linear[index], self.inputs[index]
            layer.weight.grad, layer.bias.grad = dout.t() @ x, dout.sum(0)
            if index:
                dout = threshold_backward(dout @ layer.weight, x, 0.0)

    def of_input(self, dout: Tensor) -> Tensor:
        """The gradient with respect to the input [B, in]."""
        for index in range(len(self.linear) - 1, 0, -1):
            dout = threshold_backward(dout @ self.linear[index].weight, self.inputs[index], 0.0)
        return dout @ self.linear[0].weight


def library_settings(config: RivalConfig, seed: int) -> dict[str, Any]:
    """The constants as arguments of any of the library's off-policy algorithms."""
    return {
        "learning_rate": config.critic_learning_rate,
        "buffer_size": config.replay_capacity,
        "learning_starts": config.learning_starts,
        "batch_size": config.batch_size,
        "gamma": config.discount,
        "train_freq": 1,
        "gradient_steps": -1,
        # Fused Adam is faster by a sixth, and the same up to rounding.
        "policy_kwargs": {"net_arch": list(config.hidden), "optimizer_kwargs": {"fused": True}},
        "seed": seed,
        "device": "cpu",
    }
