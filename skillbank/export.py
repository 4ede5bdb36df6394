"""Skills in other formats: safetensors (export and import), and model cards for model hubs.

``skillbank.export_onnx`` exports to ONNX. ``Bank.read`` reads a skill for an export without making
its networks.
"""

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skillbank import durable, errors, storage
from skillbank.spec import EvaluationRecord, SkillSpec, blocks_text, parameter_shapes
from skillbank.storage import StoredSkill

if TYPE_CHECKING:
    from skillbank.skill import Skill

METADATA_KEY, HASH_KEY = "skillbank.metadata", "skillbank.content_hash"
MAX_HEADER_BYTES = 2 * storage.MAX_METADATA_BYTES + (1 << 20)  # it holds the document escaped


def to_safetensors(skill: "Skill | StoredSkill", path: str | Path) -> None:
    """Write a skill as one safetensors file, with its metadata and content hash in the header.

    Raises:
        StorageError: it cannot be written.
    """
    stored = storage.as_stored(skill)
    document = storage.metadata_document(stored.spec).decode("ascii")
    content = storage.content_hash(stored.spec, stored.parameters)
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: document, HASH_KEY: content}}
    data = bytearray()
    for name in sorted(stored.parameters):
        array = np.ascontiguousarray(stored.parameters[name], "<f4")
        place = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": place}
        data += array.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    durable.replace_file(durable.as_path(path), len(text).to_bytes(8, "little") + text + data)


def from_safetensors(path: str | Path) -> StoredSkill:
    """Read a skill that ``to_safetensors`` wrote, with the same checks as for a skill file.

    ``Skill.from_stored`` makes a skill of the result, and ``Bank.save`` saves it.
    safetensors has no checksum of its own; the content hash in the header detects flipped bits.

    Raises:
        SkillFileError: the subclass says what is wrong with the file.
        SkillNotFound: there is no such file.
    """
    image = storage.read_bytes(durable.as_path(path))
    with storage.naming(path):
        return _decode(image)


def _decode(image: bytes) -> StoredSkill:
    length = int.from_bytes(image[:8], "little")
    start = 8 + length
    if len(image) < 8 or length > MAX_HEADER_BYTES or start > len(image):
        raise errors.NotASkillFile("not a safetensors file")
    try:
        header = json.loads(image[8:start], object_pairs_hook=storage.unique)
        extra = header.pop("__metadata__")
        document, content = extra[METADATA_KEY].encode("ascii"), extra[HASH_KEY]
        table = {
            name: (entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in header.items()
        }
    except KeyError as error:
        raise errors.NotASkillFile(f"a safetensors file without {error}: not a skill") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise errors.InvalidStructure("the safetensors header has the wrong form") from error
    spec = storage.parse_metadata(document)
    shapes = parameter_shapes(spec)
    storage.check_shapes({name: shape for name, (_, shape, *_) in table.items()}, shapes)
    parameters: storage.Parameters = {}
    for name, (dtype, _, *place) in table.items():
        shape = shapes[name]  # the header's shape compares equal, but may contain 4.0 or true
        count = math.prod(shape)
        if dtype != "F32":
            raise errors.ForbiddenType(f"parameter {name!r} is {dtype!r}, expected 'F32'")
        if any(type(n) is not int for n in place) or len(place) != 2:
            raise errors.InvalidStructure(f"the offsets of parameter {name!r} have the wrong form")
        first, last = place
        if first < 0 or last - first != 4 * count or start + last > len(image):
            raise errors.ForbiddenStorage(f"parameter {name!r} does not store all of its bytes")
        values = np.frombuffer(image, "<f4", count, start + first) if count else np.empty(0)
        parameters[name] = values.reshape(shape).astype(np.float32)
    places = sorted(tuple(place) for _, _, *place in table.values())
    ends = [0, *(last for _, last in places)]
    if [first for first, _ in places] != ends[:-1] or start + ends[-1] != len(image):
        raise errors.ForbiddenStorage("the parameters do not fill the file one after the other")
    if content != storage.hash_of(document, parameters):
        raise errors.DamagedFile("metadata and parameters do not match the content hash")
    _, stored = storage.prepare(spec, parameters)  # refuses NaN and infinity
    return stored


def model_card(skill: "Skill | StoredSkill") -> str:
    """Describe a skill as a Hugging Face model card: YAML metadata and Markdown text."""
    stored = storage.as_stored(skill)
    spec = stored.spec
    lines = [
        "---",
        *([f"license: {_yaml(spec.license.lower())}"] if spec.license else []),
        "library_name: skillbank",
        "pipeline_tag: reinforcement-learning",
        "tags:",
        *(f"- {tag}" for tag in ("reinforcement-learning", "soft-q-learning", "robotics")),
        f"- {_yaml(spec.env_id)}",
    ]
    if spec.evaluations:
        lines += ["model-index:", f"- name: {_yaml(spec.name)}", "  results:"]
        for result in spec.evaluations:
            lines += _result(result)
    lines += ["---", "", f"# {spec.name}", ""]
    if spec.description:
        lines += [spec.description, ""]
    lines += [
        "A maximum-entropy motor skill (soft Q-learning), kept by skillbank. "
        "Densities and soft values are with respect to actions scaled to [-1, 1].",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _facts(spec, stored.content_hash).items()),
        "",
    ]
    lines += [
        "```python",
        "import skillbank",
        "",
        f'skill = skillbank.Skill.load("{spec.name}.h5")  # the file verifies itself',
        "action, _ = skill.predict(obs)  # as a policy of Stable-Baselines3 does",
        "```",
        "",
    ]
    if spec.evaluations:
        lines += [
            "| environment | episodes | mean return (95 % interval) | also |",
            "|---|---|---|---|",
        ]
        for result in spec.evaluations:
            low, high = result.interval
            also = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
            lines.append(
                f"| {_cell(result.env_id)} | {result.episodes} | {result.mean_return:.2f} "
                f"({low:.2f} to {high:.2f}) | {also} |"
            )
        lines.append("")
    return "\n".join(lines)


def _facts(spec: SkillSpec, content: str) -> dict[str, str]:
    effort = f"{spec.steps:,} steps, {spec.updates:,} updates, seed {spec.seed}"
    facts = {
        "content hash": f"`{content}`",
        "trained in": f"{_cell(spec.task)}, {effort}",
        "for the reward": _cell(spec.reward),
        "temperature, discount": f"{spec.temperature:g}, {spec.discount:g}",
        "observation": f"{spec.observation_size} numbers: {blocks_text(spec.observation_blocks)}",
        "action": f"{spec.action_size} numbers",
        "sampling network": spec.architecture.sampler,
        "made from": ", ".join(f"`{parent}`" for parent in spec.parents),
        "versions": ", ".join(f"{k} {_cell(value)}" for k, value in sorted(spec.versions.items())),
    }
    return {name: value for name, value in facts.items() if value}


def _result(result: EvaluationRecord) -> list[str]:
    return [
        "  - task:",
        "      type: reinforcement-learning",
        "    dataset:",
        f"      name: {_yaml(result.env_id)}",
        f"      type: {_yaml(result.env_id)}",
        "    metrics:",
        "    - type: mean_reward",
        f"      value: {result.mean_return:.2f}",
        "      name: mean_reward",
    ]


def _yaml(text: str) -> str:
    """Quote a text for YAML: as a JSON string, but no character is escaped as a surrogate pair."""
    return json.dumps(text, ensure_ascii=False).encode("ascii", "backslashreplace").decode()


def _cell(text: str) -> str:
    """Escape a text for a cell of a Markdown table: it is no border, code, HTML, link or image."""
    return re.sub(r"([\\|`<\[])", r"\\\1", text)
