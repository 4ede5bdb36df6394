"""Stable-Baselines3's DDPG with the constants of the paper's appendix D.1.

Networks, replay, noise, collection and optimisers are the library's. What it does not allow:

- Hard copies of both target networks every so many updates, where it has Polyak updates.
- Two learning rates, for critic and actor: set on its optimisers, past its single schedule.
- Ornstein-Uhlenbeck noise of a step: with ``dt = 1``; its 0.01 would make it a tenth.

The update is the library's too, with gradients written out, for half the time: baselines are most
of what a study waits for. A test holds both to the same numbers.
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
        seed: Of everything.
        warm: Act by the policy from the first step on.
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
        """Make updates, with a copy of the networks after every ``target_period`` of them."""
        for _ in range(gradient_steps):
            self._update(batch_size)
            self._n_updates += 1
            if self._n_updates % max(1, self._config.target_period) == 0:
                rate = self._config.target_rate
                polyak_update(self.critic.parameters(), self.critic_target.parameters(), rate)
                polyak_update(self.actor.parameters(), self.actor_target.parameters(), rate)

    @torch.no_grad()
    def _update(self, batch_size: int) -> None:
        """One step of the critic, then one of the actor by what the critic has become."""
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
    """Linear layers with relu between them, and the gradients of their newest output [B, out]."""

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
        """The gradient over the input [B, in]."""
        for index in range(len(self.linear) - 1, 0, -1):
            dout = threshold_backward(dout @ self.linear[index].weight, self.inputs[index], 0.0)
        return dout @ self.linear[0].weight


def library_settings(config: RivalConfig, seed: int) -> dict[str, Any]:
    """The constants as the library calls them, for any of its off-policy algorithms."""
    return {
        "learning_rate": config.critic_learning_rate,
        "buffer_size": config.replay_capacity,
        "learning_starts": config.learning_starts,
        "batch_size": config.batch_size,
        "gamma": config.discount,
        "train_freq": 1,
        "gradient_steps": -1,
        # Adam in one call, which is faster by a sixth and the same but for rounding.
        "policy_kwargs": {"net_arch": list(config.hidden), "optimizer_kwargs": {"fused": True}},
        "seed": seed,
        "device": "cpu",
    }
