"""Other formats say the same as torch, and come back bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors
import safetensors.numpy
import torch
from skill_files import TINY, random_parameters, small_spec

from skillbank import errors, export, export_onnx, storage
from skillbank.skill import Skill
from skillbank.spec import EvaluationRecord, ObservationBlock

WIDE = {
    "observation_blocks": (
        ObservationBlock(name="body", size=5),
        ObservationBlock(name="arena", size=2),
    ),
    "action_low": (-2.0, -1.0, 0.0, -1.0, -0.5),
    "action_high": (2.0, 1.0, 3.0, 1.0, 0.5),
}
FLOW = TINY.model_copy(
    update={"critics": 2, "critic_hidden": (9, 8), "sampler_hidden": (7, 6), "couplings": 4}
)
SPECS: dict[str, dict[str, Any]] = {
    "flow": {"architecture": FLOW, "noise_set": 0},
    "noise set": {"architecture": FLOW, "noise_set": 3},
    "no layer norm": {"architecture": FLOW.model_copy(update={"layer_norm": False})},
    "no couplings": {"architecture": FLOW.model_copy(update={"couplings": 0}), "noise_set": 0},
    "noise-fed": {"architecture": FLOW.model_copy(update={"sampler": "noise"}), "noise_set": 0},
    "anchored": {"architecture": FLOW, "anchored": True, "noise_set": 0},
    "one action": {
        "architecture": FLOW, "noise_set": 0, "action_low": (-1.0,), "action_high": (2.0,)
    },
}  # fmt: skip


@pytest.fixture(params=SPECS.values(), ids=SPECS.keys())
def stored(request: pytest.FixtureRequest) -> storage.StoredSkill:
    spec = small_spec(**(WIDE | request.param))
    parameters = {name: 0.4 * array for name, array in random_parameters(spec, 1).items()}
    if spec.anchored:  # as in fine-tuning: actions are likely under the skill it started from
        for name in parameters:
            if name.startswith("anchor/"):
                parameters[name] = 0.99 * parameters[name.replace("anchor/", "sampler/")]
    return storage.prepare(spec, parameters)[1]


def run(model: bytes, **inputs: Any) -> Any:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def test_onnx_draws_the_same_actions_as_torch(stored: storage.StoredSkill) -> None:
    skill, spec = Skill.from_stored(stored), stored.spec
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(6, spec.observation_size)).astype(np.float32)
    if spec.noise_set:
        index = rng.integers(spec.noise_set, size=(6, 4))
        noise = stored.parameters["noise"][index]
        found = run(export_onnx.sampler_model(stored), obs=obs, index=index)
    else:
        noise = rng.normal(size=(6, 4, spec.action_size)).astype(np.float32)
        found = run(export_onnx.sampler_model(stored), obs=obs, noise=noise)
    u = skill.sampler.push(torch.from_numpy(obs), torch.from_numpy(noise))
    np.testing.assert_allclose(found, skill.unscaled(torch.tanh(u)), atol=1e-5)
    assert found.shape == (6, 4, spec.action_size)
    assert np.ptp(found) > 0.1


def test_onnx_gives_the_same_q_as_torch(stored: storage.StoredSkill) -> None:
    skill, spec = Skill.from_stored(stored), stored.spec
    obs = np.random.default_rng(0).normal(size=(6, spec.observation_size)).astype(np.float32)
    action = skill.sample(obs, 4, seed=0).astype(np.float32)
    found = run(export_onnx.critic_model(stored), obs=obs, action=action)
    expected = skill.q(obs, action)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    assert np.ptp(found) > 1e-3


def test_onnx_is_written_with_its_origin(stored: storage.StoredSkill, tmp_path: Path) -> None:
    paths = export_onnx.to_onnx(stored, str(tmp_path))
    assert [path.name for path in paths] == ["small-sampler.onnx", "small-critic.onnx"]
    for path in paths:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        properties = session.get_modelmeta().custom_metadata_map
        assert properties["skillbank.content_hash"] == stored.content_hash


def test_safetensors_comes_back_bit_for_bit(stored: storage.StoredSkill, tmp_path: Path) -> None:
    path = str(tmp_path / "skill.safetensors")
    export.to_safetensors(stored, path)
    back = export.from_safetensors(path)
    assert back.spec == stored.spec
    assert back.content_hash == stored.content_hash
    theirs = safetensors.numpy.load_file(path)  # the format's own library agrees
    assert theirs.keys() == stored.parameters.keys()
    for name, array in stored.parameters.items():
        assert back.parameters[name].tobytes() == array.tobytes() == theirs[name].tobytes()
        assert theirs[name].shape == array.shape
    with safetensors.safe_open(path, "numpy") as opened:
        assert opened.metadata()["skillbank.content_hash"] == stored.content_hash


@pytest.fixture
def file(tmp_path: Path) -> Path:
    spec = small_spec()
    path = tmp_path / "skill.safetensors"
    export.to_safetensors(storage.prepare(spec, random_parameters(spec))[1], path)
    return path


def test_a_skill_in_memory_is_exported_like_its_file(
    stored: storage.StoredSkill, tmp_path: Path
) -> None:
    skill = Skill(stored.spec, stored.parameters)  # never saved
    assert export.model_card(skill) == export.model_card(stored)
    for to in (export.to_safetensors, export_onnx.to_onnx):
        written = []
        for number, one in enumerate((skill, stored)):
            folder = tmp_path / f"{to.__name__}{number}"
            to(one, folder / "x.onnx")
            written.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert written[0] == written[1]
    for model in (export_onnx.sampler_model, export_onnx.critic_model):
        assert model(skill) == model(stored)


def test_every_kind_of_damage_to_safetensors_is_found(file: Path) -> None:
    """The format itself would load nearly all of these without a word."""
    good = file.read_bytes()
    for index in range(0, 8 * len(good), 7):
        data = bytearray(good)
        data[index // 8] ^= 1 << index % 8
        file.write_bytes(data)
        try:
            export.from_safetensors(file)
        except errors.SkillFileError:
            continue
        assert good[index // 8 : index // 8 + 1] == b" "  # padding that became other white space
        assert data[index // 8 : index // 8 + 1].isspace()


def test_every_truncation_of_safetensors_is_found(file: Path) -> None:
    good = file.read_bytes()
    for length in range(0, len(good), 13):
        file.write_bytes(good[:length])
        with pytest.raises(errors.SkillFileError):
            export.from_safetensors(file)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda h: h.pop("__metadata__"), errors.NotASkillFile),
        (lambda h: h.pop("noise"), errors.MissingParameter),
        (lambda h: h.update(extra=h["noise"]), errors.UnknownParameter),
        (lambda h: h["noise"].update(dtype="I32"), errors.ForbiddenType),
        (lambda h: h["noise"].update(shape=[4]), errors.WrongShape),
        (lambda h: h["noise"].update(data_offsets=[0, 1 << 40]), errors.ForbiddenStorage),
        (lambda h: h["noise"].update(data_offsets=[-16, 0]), errors.ForbiddenStorage),
        (lambda h: h["noise"].update(data_offsets=["0", "16"]), errors.InvalidStructure),
        (lambda h: h["noise"].update(data_offsets=[0, 16]), errors.ForbiddenStorage),
        (lambda h: h["noise"].update(data_offsets=7), errors.InvalidStructure),
        (lambda h: h.update(__metadata__="x"), errors.InvalidStructure),
        (
            lambda h: h["noise"].update(shape=[2.0, 2.0], data_offsets=[0, 16]),
            errors.ForbiddenStorage,
        ),
    ],
)
def test_hostile_safetensors_are_refused(file: Path, change: Any, expected: Any) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(expected, match=file.name):
        export.from_safetensors(file)


def test_safetensors_have_no_bytes_but_those_of_parameters(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(errors.ForbiddenStorage, match="one after the other"):
        export.from_safetensors(file)


def test_somebody_elses_safetensors_is_no_skill(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3, np.float32)}, path)
    with pytest.raises(errors.NotASkillFile, match="not a skill"):
        export.from_safetensors(path)


def test_the_model_card_says_what_a_hub_wants_to_know() -> None:
    result = EvaluationRecord(
        env_id="skillbank/QuadrupedRun-v0",
        episodes=400,
        seed=0,
        mean_return=612.5,
        interval=(600.0, 625.0),
        metrics={"net_distance": 41.25},
    )
    spec = small_spec(evaluations=(result,), description='It says: "run".', parents=("ab" * 32,))
    card = export.model_card(storage.prepare(spec, random_parameters(spec))[1])
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert 'license: "mit"' in front
    assert "- type: mean_reward" in front
    assert "value: 612.50\n" in front
    assert (
        "| skillbank/QuadrupedRun-v0 | 400 | 612.50 (600.00 to 625.00) | net_distance 41.25 |"
        in body
    )
    assert "ab" * 32 in body
    assert 'It says: "run".' in body


def test_no_text_of_a_skill_is_markup_in_its_card() -> None:
    hostile = "x | y <img src=z> ![](z) `z` \\|"
    shown = r"x \| y \<img src=z> !\[](z) \`z\` \\\|"
    result = EvaluationRecord(
        env_id=hostile, episodes=1, seed=0, mean_return=1.0, interval=(1.0, 1.0), metrics={}
    )
    spec = small_spec(
        env_id=hostile, reward=hostile, versions={"mujoco": hostile}, evaluations=(result,)
    )
    card = export.model_card(storage.prepare(spec, random_parameters(spec))[1])
    _, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert f"| trained in | {shown}, 100 steps" in body
    assert f"| for the reward | {shown} |" in body
    assert f"| versions | mujoco {shown} |" in body
    assert f"| {shown} | 1 | 1.00" in body


def test_any_text_of_a_skill_is_yaml_in_its_card() -> None:
    """YAML has an escape for every character, but does not join the halves of JSON's pairs."""
    spec = small_spec(license='MIT \U0001f916 \u00e9 \uffff "\\')
    card = export.model_card(storage.prepare(spec, random_parameters(spec))[1])
    assert "license" not in export.model_card(
        storage.prepare(small_spec(license=""), random_parameters(spec))[1]
    )
    assert r'license: "mit \U0001f916 \xe9 \uffff \"\\"' in card
