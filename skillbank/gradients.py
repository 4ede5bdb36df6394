"""Forward passes of the networks for training, with manually derived gradients.

`skillbank.networks` defines the networks, and its forward passes are differentiated by autograd.
An update needs only a few gradients, always the same ones; computed manually they cost half,
because nothing unused is computed or recorded. Both forms agree up to rounding, as the tests check.

``dX`` is the gradient of the loss with respect to ``X``. There are C critics, B states, K actions
per state, and N = B K.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from skillbank.networks import (
    LOG_COUPLING_RANGE,
    LOG_SCALE_CENTRE,
    LOG_SCALE_RANGE,
    Critic,
    FlowSampler,
    NoiseSampler,
)

threshold_backward = torch.ops.aten.threshold_backward.grad_input  # gradient of relu, in place
layer_norm_backward = torch.ops.aten.native_layer_norm_backward
LAYER_NORM_EPSILON = 1e-5  # torch.nn.functional.layer_norm's
Gradients = dict[str, Tensor]  # by parameter name


class Product(Protocol):
    """A function for the large matrix products, those between hidden layers."""

    def __call__(self, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        """``a @ b + bias``."""


def exact(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a @ b + bias`` for matrices or batches of matrices."""
    if a.ndim == 2:
        return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)
    return torch.bmm(a, b) if bias is None else torch.baddbmm(bias, a, b)


def rounded(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a @ b + bias`` with factors and product rounded to bfloat16 (8 significant bits)."""
    found = exact(a.bfloat16(), b.bfloat16()).to(a.dtype)
    return found if bias is None else found.add_(bias)


def skinny(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` for b with few columns, computed as ``(b^T a^T)^T``, which is 4 times faster."""
    return torch.matmul(b.mT, a.mT).mT.contiguous()


class CriticPass:
    """Forward pass of the critics: ``z = x W + b``, ``h = relu(layer norm z)``, ``q = h w + b``.

    Args:
        critic: The networks.
        obs: [B, S].
        action: [B, A], or [B, K, A].
        remember: Keep the activations that the gradients need.
        product: ``exact`` or ``rounded``.

    Attributes:
        q: Q-values [C, B], or [C, B, K].
    """

    @torch.no_grad()
    def __init__(
        self,
        critic: Critic,
        obs: Tensor,
        action: Tensor,
        *,
        remember: bool = True,
        product: Product = exact,
    ) -> None:
        self.critic, self.remember, self.product = critic, remember, product
        self.shape = action.shape
        self.first: Tensor | None = None  # input of the first layer [C, B, S + A]
        self.outputs: list[Tensor] = []  # h of each layer [C, N, H]
        self.centred: list[Tensor] = []  # z - mean(z) of each normalised layer
        self.inverse: list[Tensor] = []  # 1 / its standard deviation [C, N, 1]
        z = self._first(obs, action)
        for layer in range(1, critic.hidden):
            weight, bias = critic[f"{layer}.weight"], critic[f"{layer}.bias"]
            z = product(self._activate(z), weight, bias)
        h = self._activate(z)
        last = zip(critic["out.bias"].view(-1, 1), h, critic["out.weight"].squeeze(2), strict=True)
        q = torch.stack([torch.addmv(*terms) for terms in last])  # faster than a batched product
        self.q = q.view(-1, *self.shape[:-1])

    def _first(self, obs: Tensor, action: Tensor) -> Tensor:
        weight, bias = self.critic["0.weight"], self.critic["0.bias"]
        critics = len(weight)
        if action.ndim == 2 or action.shape[1] == 1:
            self.first = torch.cat((obs, action.view(len(obs), -1)), 1).expand(critics, -1, -1)
            return torch.baddbmm(bias, self.first, weight)
        # The state's part of the product is computed once per state, not once per action.
        size = self.critic.observation
        of_state = torch.baddbmm(bias, obs.expand(critics, -1, -1), weight[:, :size])
        z = torch.matmul(action.flatten(0, 1), weight[:, size:])  # [C, N, H]
        z.view(critics, *action.shape[:2], -1).add_(of_state.unsqueeze(2))
        return z

    def _activate(self, z: Tensor) -> Tensor:
        """Compute relu(layer norm z); overwrites z."""
        if not self.critic.layer_norm:
            h = z.relu_()
        else:
            z -= z.mean(-1, keepdim=True)
            norm = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
            epsilon = norm.new_tensor(LAYER_NORM_EPSILON)
            inverse = torch.addcmul(epsilon, norm, norm, value=1.0 / z.shape[-1]).rsqrt_()
            h = (torch.relu(z) if self.remember else z.relu_()).mul_(inverse)
            if self.remember:
                self.centred.append(z)
                self.inverse.append(inverse)
        if self.remember:
            self.outputs.append(h)
        return h

    def _into(self, layer: int, dh: Tensor) -> Tensor:
        """Backpropagate from a layer's output to its z [C, N, H]; overwrites dh."""
        threshold_backward(dh, self.outputs[layer], 0.0, grad_input=dh)
        if not self.critic.layer_norm:
            return dh
        z, inverse = self.centred[layer], self.inverse[layer]
        zero, of_input = torch.zeros_like(inverse), [True, False, False]
        dz, _, _ = layer_norm_backward(dh, z, z.shape[-1:], zero, inverse, None, None, of_input)
        return dz  # type: ignore[no-any-return]

    @torch.no_grad()
    def of_parameters(self, dq: Tensor) -> Gradients:
        """Gradients with respect to all parameters, for one action per state: dq [C, B]."""
        critic, first = self.critic, self.first
        assert first is not None, "one action per state"
        found: Gradients = {}
        h, column = self.outputs[-1], dq.unsqueeze(2)  # [C, B, 1]
        rows = zip(h.mT, dq, strict=True)
        found["out.weight"] = torch.stack([torch.mv(*terms) for terms in rows]).unsqueeze(2)
        found["out.bias"] = column.sum(1, keepdim=True)
        dh = column * critic["out.weight"].mT
        for layer in range(critic.hidden - 1, -1, -1):
            dz = self._into(layer, dh)
            found[f"{layer}.bias"] = dz.sum(1, keepdim=True)
            if layer:
                found[f"{layer}.weight"] = self.product(self.outputs[layer - 1].mT, dz)
                dh = self.product(dz, critic[f"{layer}.weight"].mT)
            else:
                found["0.weight"] = torch.bmm(first.mT, dz)
        return found

    @torch.no_grad()
    def of_action(self, dq: Tensor) -> Tensor:
        """Gradient with respect to the actions: dq, shaped as ``q`` -> [B, A] or [B, K, A]."""
        critic = self.critic
        dz = dq.reshape(len(dq), -1, 1) * critic["out.weight"].mT
        for layer in range(critic.hidden - 1, 0, -1):
            dz = self.product(self._into(layer, dz), critic[f"{layer}.weight"].mT)
        dz = self._into(0, dz)
        of_action = critic["0.weight"][:, critic.observation :]
        return skinny(dz, of_action.mT).sum(0).view(self.shape)


class FlowPass:
    """Forward pass of the flow: affine couplings, then an affine map that depends on the state.

    Args:
        sampler: The network.
        obs: [B, S].
        noise: [B, K, A].
        product: ``exact`` or ``rounded``.

    Attributes:
        u: [B, K, A].
        log_q: log q(u | s) [B, K] (eq. 33).
    """

    @torch.no_grad()
    def __init__(
        self, sampler: FlowSampler, obs: Tensor, noise: Tensor, product: Product = exact
    ) -> None:
        self.sampler, self.product = sampler, product
        batch, count, size = noise.shape
        layers, units = sampler.couplings, sampler.coupling_hidden
        # The part that depends on the state only, computed once per state.
        self.trunk = [obs]
        for layer in range(sampler.trunk):
            weight, bias = sampler[f"{layer}.weight"], sampler[f"{layer}.bias"]
            make = product if layer else exact
            self.trunk.append(make(self.trunk[-1], weight, bias).relu_())
        head = product(self.trunk[-1], sampler["head.weight"], sampler["head.bias"])
        mean = head[:, :size].unsqueeze(1)
        self.raw = torch.tanh(head[:, size : 2 * size]).unsqueeze(1)  # [B, 1, A]
        log_scale = LOG_SCALE_CENTRE + LOG_SCALE_RANGE * self.raw
        self.scale = log_scale.exp()
        rows = batch * count
        biases = head[:, 2 * size :].unsqueeze(1).expand(-1, count, -1)
        biases = biases.reshape(rows, len(sampler.reads), units)
        self.into, self.out, out_bias = sampler.masked()
        self.x = noise.new_empty(layers + 1, rows, size)  # input of each coupling, and the output
        self.hidden = noise.new_empty(layers, rows, units)
        self.log_scales = noise.new_empty(layers, rows, size)
        self.scales: list[Tensor] = []
        x, *later = self.x.unbind()
        x.copy_(noise.view(rows, size))
        weights = (biases.unbind(1), self.into, out_bias, self.out)
        kept = (self.hidden.unbind(), self.log_scales.unbind(), later)
        for bias, into, b, out, hidden, log, moved in zip(*weights, *kept, strict=False):
            torch.addmm(bias, x, into, out=hidden).relu_()
            raw, shift = torch.addmm(b, hidden, out).chunk(2, 1)
            torch.tanh(raw, out=log).mul_(LOG_COUPLING_RANGE)
            self.scales.append(log.exp())
            x = torch.addcmul(shift, x, self.scales[-1], out=moved)
        self.u = torch.addcmul(mean, self.scale, x.view(noise.shape))
        log_det = self.log_scales.sum(0).view(noise.shape).add_(log_scale)
        # log N(xi) - log det
        self.log_q = log_det.addcmul_(noise, noise, value=0.5).sum(2).neg_()
        self.log_q -= 0.5 * size * math.log(2.0 * math.pi)

    @torch.no_grad()
    def of_parameters(self, du: Tensor, dlog_q: float = 0.0) -> Gradients:
        """Gradients with respect to all parameters.

        Args:
            du: Gradient with respect to u [B, K, A].
            dlog_q: Gradient with respect to each log q(u | s), equal for all particles.
        """
        sampler = self.sampler
        batch, count, size = du.shape
        layers, units = sampler.couplings, sampler.coupling_hidden
        dx = (du * self.scale).view(-1, size)
        dlog_scale = (dx * self.x[-1]).view(du.shape).sum(1) - count * dlog_q
        draw = dlog_scale * (1.0 - self.raw.squeeze(1).square()) * LOG_SCALE_RANGE
        # A coupling's log-scale is r tanh(raw), whose derivative is r - log_scale^2 / r.
        slope = LOG_COUPLING_RANGE - self.log_scales.square() / LOG_COUPLING_RANGE
        x_slope, dlog_det = self.x[:-1] * slope, slope * -dlog_q
        dout = du.new_empty(layers, len(dx), 2 * size)  # with respect to raw and shift
        dhidden = torch.empty_like(self.hidden)
        terms = (dout, dhidden, self.hidden, self.scales, x_slope, dlog_det, self.out, self.into)
        for both, dh, hidden, scale, xs, dlog, out, into in reversed(
            list(zip(*terms, strict=False))
        ):
            draw_out, dshift = both.chunk(2, 1)
            of_scale = dx * scale
            torch.addcmul(dlog, of_scale, xs, out=draw_out)
            dshift.copy_(dx)
            torch.mm(both, out.t(), out=dh)
            threshold_backward(dh, hidden, 0.0, grad_input=dh)
            dx = torch.addmm(of_scale, dh, into.t())
        if layers:
            dbias = dhidden.view(layers, batch, count, units).sum(2).transpose(0, 1).flatten(1)
            found = {
                "coupling.in": torch.bmm(self.x[:-1].mT, dhidden) * sampler.reads,
                "coupling.out": torch.bmm(self.hidden.mT, dout) * sampler.moves,
                "coupling.bias": dout.sum(1) * sampler.moves.squeeze(1),
            }
        else:  # no couplings, or an action of one component, for which they are not used
            dbias = du.new_zeros(batch, sampler["head.bias"].numel() - 2 * size)
            names = ("coupling.in", "coupling.out", "coupling.bias")
            found = {name: torch.zeros_like(sampler[name]) for name in names}
        return found | self._of_trunk(torch.cat((du.sum(1), draw, dbias), 1))

    def _of_trunk(self, dhead: Tensor) -> Gradients:
        """Backpropagate through the trunk, from its output for each state [B, .]."""
        sampler, dz = self.sampler, dhead
        found: Gradients = {}
        names = [*(str(layer) for layer in range(sampler.trunk)), "head"]
        for name, h in zip(reversed(names), reversed(self.trunk), strict=True):
            make = exact if name == "0" else self.product
            found[f"{name}.weight"] = make(h.t(), dz)
            found[f"{name}.bias"] = dz.sum(0)
            if name != "0":
                dz = self.product(dz, sampler[f"{name}.weight"].t())
                threshold_backward(dz, h, 0.0, grad_input=dz)
        return found


class NoisePass:
    """Forward pass of the paper's noise-fed network: ``u = f(xi; s)``.

    Args:
        sampler: The network.
        obs: [B, S].
        noise: [B, K, A].
        product: ``exact`` or ``rounded``.

    Attributes:
        u: [B, K, A].
    """

    @torch.no_grad()
    def __init__(
        self, sampler: NoiseSampler, obs: Tensor, noise: Tensor, product: Product = exact
    ) -> None:
        self.sampler, self.obs, self.noise, self.product = sampler, obs, noise, product
        weight, size = sampler["0.weight"], sampler.observation
        of_state = torch.addmm(sampler["0.bias"], obs, weight[:size])
        z = torch.mm(noise.flatten(0, 1), weight[size:])
        z.view(*noise.shape[:2], -1).add_(of_state.unsqueeze(1))
        self.hidden = [z.relu_()]
        for layer in range(1, sampler.hidden):
            weight, bias = sampler[f"{layer}.weight"], sampler[f"{layer}.bias"]
            self.hidden.append(product(self.hidden[-1], weight, bias).relu_())
        u = skinny(self.hidden[-1], sampler["out.weight"]).add_(sampler["out.bias"])
        self.u = u.view(noise.shape)

    @property
    def log_q(self) -> Tensor:
        """Log q(u | s) [B, K] (see ``NoiseSampler.with_log_density``)."""
        return self.sampler.with_log_density(self.obs, self.noise)[1]

    @torch.no_grad()
    def of_parameters(self, du: Tensor) -> Gradients:
        """Gradients with respect to all parameters: du [B, K, A]."""
        sampler, dz = self.sampler, du.flatten(0, 1)
        found: Gradients = {}
        names = [*(str(layer) for layer in range(1, sampler.hidden)), "out"]
        for name, h in zip(reversed(names), reversed(self.hidden), strict=True):
            make, back = (skinny, exact) if name == "out" else (self.product, self.product)
            found[f"{name}.weight"] = make(h.t(), dz)
            found[f"{name}.bias"] = dz.sum(0)
            dz = back(dz, sampler[f"{name}.weight"].t())
            threshold_backward(dz, h, 0.0, grad_input=dz)
        of_state = dz.view(*du.shape[:2], -1).sum(1)  # [B, H]
        found["0.weight"] = torch.cat(
            (torch.mm(self.obs.t(), of_state), torch.mm(self.noise.flatten(0, 1).t(), dz))
        )
        found["0.bias"] = of_state.sum(0)
        return found
