"""A skill's networks as ONNX graphs, for robots and runtimes without torch.

Two models, both in the environment's own units:

- ``sampler``: obs [B, S] and noise [B, K, A] (standard normal) to action [B, K, A]. A skill with a
  fixed noise set takes index [B, K] into the set instead; in a set of one, index 0 is the policy.
- ``critic``: obs [B, S] and action [B, K, A] to the soft Q-value q [B, K].

A skill applies its symmetries outside of its networks, so the models do not include them. The
graphs follow ``skillbank.networks`` line by line.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skillbank import durable, errors, storage
from skillbank.gradients import LAYER_NORM_EPSILON
from skillbank.networks import (
    EDGE,
    LOG_COUPLING_RANGE,
    LOG_SCALE_CENTRE,
    LOG_SCALE_RANGE,
    coupling_masks,
)
from skillbank.spec import SkillSpec
from skillbank.storage import StoredSkill

if TYPE_CHECKING:
    from skillbank.skill import Skill

OPSET, IR_VERSION = 18, 9


def to_onnx(skill: "Skill | StoredSkill", path: str | Path) -> list[Path]:
    """Write the two models, ``walk-sampler.onnx`` and ``walk-critic.onnx``.

    Args:
        skill: The skill.
        path: A folder, in which the files are named after the skill; or a file ``walk.onnx``, which
            gives the names above.

    Returns:
        Paths of the two files.

    Raises:
        SkillbankError: onnx is not installed.
        StorageError: The folder cannot be written.
    """
    stored, path, paths = storage.as_stored(skill), durable.as_path(path), []
    stem = path / stored.spec.name
    if path.suffix.lower() == ".onnx" and not path.is_dir():
        stem = path.with_suffix("")
    for part, model in (("sampler", sampler_model(stored)), ("critic", critic_model(stored))):
        paths.append(stem.parent / f"{stem.name}-{part}.onnx")
        durable.replace_file(paths[-1], model)
    return paths


def sampler_model(skill: "Skill | StoredSkill") -> bytes:
    """The sampling network: obs and noise (or index) to action."""
    stored = storage.as_stored(skill)
    spec, graph = stored.spec, _Graph(stored)
    graph.input("obs", ["B", spec.observation_size])
    if spec.noise_set:
        graph.input("index", ["B", "K"], integer=True)
        noise = graph.op("Gather", graph.constant(stored.parameters["noise"]), "index", axis=0)
    else:
        noise = graph.input("noise", ["B", "K", spec.action_size])
    u = graph.flow(noise) if spec.architecture.sampler == "flow" else graph.noise_fed(noise)
    low, high = (np.array(side, np.float32) for side in (spec.action_low, spec.action_high))
    share = graph.op("Mul", graph.op("Add", graph.op("Tanh", u), 1.0), 0.5)
    own = graph.op("Add", graph.op("Mul", share, high - low), low)
    own = graph.op("Min", graph.op("Max", own, low), high)
    return graph.model("action", own, ["B", "K", spec.action_size])


def critic_model(skill: "Skill | StoredSkill") -> bytes:
    """The soft Q-function, the minimum over the critics: obs and action to q."""
    stored = storage.as_stored(skill)
    spec, graph = stored.spec, _Graph(stored)
    graph.input("obs", ["B", spec.observation_size])
    graph.input("action", ["B", "K", spec.action_size])
    low, high = (np.array(side, np.float64) for side in (spec.action_low, spec.action_high))
    # In 64-bit, like the torch code: near -1 and 1 artanh amplifies rounding errors.
    wide = graph.op("Cast", "action", to=graph.DOUBLE)
    share = graph.op("Div", graph.op("Sub", wide, low), high - low)
    scaled = graph.op("Sub", graph.op("Mul", share, np.float64(2.0)), np.float64(1.0))
    scaled = graph.op("Cast", scaled, to=graph.FLOAT)
    q = graph.critics(scaled)
    if spec.anchored:
        inside = graph.op("Min", graph.op("Max", scaled, -EDGE), EDGE)
        u = graph.op("Atanh", inside)
        log_prior = graph.op("Sub", graph.log_density(u), graph.log_squash(u))
        q = graph.op("Add", q, graph.op("Mul", log_prior, float(spec.temperature)))
    return graph.model("q", q, ["B", "K"])


class _Graph:
    """Builds a graph one operation at a time; operands are names, numbers or arrays."""

    FLOAT, DOUBLE = 1, 11  # type codes of onnx.TensorProto

    def __init__(self, stored: StoredSkill) -> None:
        try:
            import onnx
        except ImportError as error:
            raise errors.SkillbankError(
                "exporting to ONNX needs onnx: pip install 'skillbank[export]'"
            ) from error
        self._onnx: Any = onnx
        self._stored = stored
        self._spec: SkillSpec = stored.spec
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._constants: list[Any] = []

    def input(self, name: str, shape: list[int | str], *, integer: bool = False) -> str:
        kind = self._onnx.TensorProto.INT64 if integer else self._onnx.TensorProto.FLOAT
        self._inputs.append(self._onnx.helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self._constants)}"
        tensor = self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        self._constants.append(tensor)
        return name

    def op(self, kind: str, *operands: Any, **attributes: Any) -> str:
        return self.ops(kind, *operands, outputs=1, **attributes)[0]

    def ops(self, kind: str, *operands: Any, outputs: int, **attributes: Any) -> list[str]:
        names = [
            operand if isinstance(operand, str) else self.constant(_array(operand))
            for operand in operands
        ]
        results = [f"n{len(self._nodes)}_{index}" for index in range(outputs)]
        self._nodes.append(self._onnx.helper.make_node(kind, names, results, **attributes))
        return results

    def model(self, name: str, result: str, shape: list[int | str]) -> bytes:
        helper = self._onnx.helper
        self._nodes.append(helper.make_node("Identity", [result], [name]))
        output = helper.make_tensor_value_info(name, self._onnx.TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, name, self._inputs, [output], self._constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="skillbank",
        )
        helper.set_model_props(
            model,
            {
                "skillbank.content_hash": self._stored.content_hash,
                "skillbank.metadata": storage.metadata_document(self._spec).decode("ascii"),
            },
        )
        self._onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    # The networks.

    def critics(self, scaled: str) -> str:
        """Q of scaled actions [B, K, A] -> [B, K]."""
        size, hidden = self._spec.observation_size, len(self._spec.architecture.critic_hidden)
        weight = self._parameter("critic/0.weight")  # [C, S + A, H]
        bias = self._parameter("critic/0.bias")
        of_state = self.op("Add", self.op("MatMul", "obs", weight[:, :size]), bias)  # [C, B, H]
        of_action = self.op("MatMul", scaled, weight[:, None, size:])  # [C, B, K, H]
        h = self.op("Add", of_action, self._unsqueeze(of_state, 2))
        for layer in range(1, hidden):
            h = self._batched(self._activated(h, layer - 1), f"critic/{layer}")
        q = self._batched(self._activated(h, hidden - 1), "critic/out")  # [C, B, K, 1]
        q = self.op("Squeeze", q, np.array([-1]))
        return self.op("ReduceMin", q, np.array([0]), keepdims=0)

    def flow(self, noise: str) -> str:
        """Noise [B, K, A] -> u [B, K, A]."""
        mean, log_scale, biases = self._flow_state("sampler")
        x = noise
        for layer, bias in enumerate(biases):
            coupling_scale, shift = self._coupling("sampler", layer, x, bias)
            x = self.op("Add", self.op("Mul", x, self.op("Exp", coupling_scale)), shift)
        return self.op("Add", mean, self.op("Mul", self.op("Exp", log_scale), x))

    def noise_fed(self, noise: str) -> str:
        """Noise [B, K, A] -> u [B, K, A] by the paper's network."""
        size = self._spec.observation_size
        weight = self._parameter("sampler/0.weight")
        of_state = self._linear("obs", weight[:size], self._parameter("sampler/0.bias"))
        h = self.op("Add", self.op("MatMul", noise, weight[size:]), self._unsqueeze(of_state, 1))
        names = [str(layer) for layer in range(1, len(self._spec.architecture.sampler_hidden))]
        for name in [*names, "out"]:
            h = self._layer(self.op("Relu", h), f"sampler/{name}")
        return h

    def log_density(self, u: str) -> str:
        """Log-density of u [B, K, A] under the anchor -> [B, K], by inverting its couplings."""
        mean, log_scale, biases = self._flow_state("anchor")
        x = self.op("Mul", self.op("Sub", u, mean), self.op("Exp", self.op("Neg", log_scale)))
        log_det = self._sum(log_scale)
        for layer in reversed(range(len(biases))):
            coupling_scale, shift = self._coupling("anchor", layer, x, biases[layer])
            undone = self.op("Exp", self.op("Neg", coupling_scale))
            x = self.op("Mul", self.op("Sub", x, shift), undone)
            log_det = self.op("Add", log_det, self._sum(coupling_scale))
        half = self.op("Mul", self._sum(self.op("Mul", x, x)), -0.5)
        log_normal = self.op("Sub", half, 0.5 * self._spec.action_size * math.log(2 * math.pi))
        return self.op("Sub", log_normal, log_det)

    def log_squash(self, u: str) -> str:
        """Sum over components of log(1 - tanh(u)^2), stable for large u."""
        soft = self.op("Softplus", self.op("Mul", u, -2.0))
        inner = self.op("Sub", self.op("Sub", math.log(2.0), u), soft)
        return self.op("Mul", self._sum(inner), 2.0)

    def _flow_state(self, part: str) -> tuple[str, str, list[str]]:
        """Mean and log-scale [B, 1, A], and the bias of each coupling [B, 1, hidden]."""
        architecture, size = self._spec.architecture, self._spec.action_size
        h = "obs"
        for layer in range(len(architecture.sampler_hidden)):
            h = self.op("Relu", self._layer(h, f"{part}/{layer}"))
        head = self._unsqueeze(self._layer(h, f"{part}/head"), 1)
        sizes = [size, size, *[architecture.coupling_hidden] * architecture.couplings]
        pieces = self.ops("Split", head, np.array(sizes), outputs=len(sizes), axis=-1)
        raw = self.op("Mul", self.op("Tanh", pieces[1]), LOG_SCALE_RANGE)
        used = pieces[2:] if size > 1 else []  # a coupling needs two components
        return pieces[0], self.op("Add", raw, LOG_SCALE_CENTRE), used

    def _coupling(self, part: str, layer: int, x: str, bias: str) -> tuple[str, str]:
        """Log-scale and shift of the transformed components, zero elsewhere, each [B, K, A]."""
        architecture, size = self._spec.architecture, self._spec.action_size
        kept = coupling_masks(architecture.couplings, size).numpy()[layer]
        into, out, out_bias = (
            self._parameter(f"{part}/coupling.{kind}")[layer] for kind in ("in", "out", "bias")
        )
        hidden = self.op("Add", self.op("MatMul", self.op("Mul", x, kept), into), bias)
        both = self._linear(self.op("Relu", hidden), out, out_bias)
        raw, shift = self.ops("Split", both, np.array([size, size]), outputs=2, axis=-1)
        log_scale = self.op("Mul", self.op("Tanh", self.op("Div", raw, LOG_COUPLING_RANGE)),
                            LOG_COUPLING_RANGE)  # fmt: skip
        moved = 1.0 - kept
        return self.op("Mul", log_scale, moved), self.op("Mul", shift, moved)

    def _batched(self, h: str, layer: str) -> str:
        """One linear layer for each critic: [C, B, K, n] -> [C, B, K, m]."""
        weight, bias = self._parameter(f"{layer}.weight"), self._parameter(f"{layer}.bias")
        return self._linear(h, weight[:, None], bias[:, None])

    def _layer(self, h: str, layer: str) -> str:
        weight, bias = self._parameter(f"{layer}.weight"), self._parameter(f"{layer}.bias")
        return self._linear(h, weight, bias)

    def _linear(self, h: str, weight: NDArray[Any], bias: NDArray[Any]) -> str:
        return self.op("Add", self.op("MatMul", h, weight), bias)

    def _activated(self, h: str, layer: int) -> str:
        if self._spec.architecture.layer_norm:
            ones = np.ones(self._spec.architecture.critic_hidden[layer], np.float32)
            h = self.op("LayerNormalization", h, ones, axis=-1, epsilon=LAYER_NORM_EPSILON)
        return self.op("Relu", h)

    def _sum(self, x: str) -> str:
        return self.op("ReduceSum", x, np.array([-1]), keepdims=0)

    def _unsqueeze(self, x: str, axis: int) -> str:
        return self.op("Unsqueeze", x, np.array([axis]))

    def _parameter(self, name: str) -> NDArray[Any]:
        return self._stored.parameters[name]


def _array(operand: Any) -> NDArray[Any]:
    """Convert an operand to an array: arrays keep their type, Python's numbers become float32."""
    kept = isinstance(operand, np.ndarray | np.float64)
    return np.asarray(operand, None if kept else np.float32)
