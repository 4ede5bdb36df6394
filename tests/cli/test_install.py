"""The wheel, used from another folder: nothing global but ``skillbank``, and nothing missing."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("skillbank", "envs", "pretrained")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays as it is."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *SOURCES, "pyproject.toml", "README.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in [*listed.stdout.splitlines(), "LICENSE"]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run(
        [*build, str(copy), "-w", str(out)], check=True, env=os.environ | {"PYTHONPATH": ""}
    )
    (found,) = out.glob("*.whl")
    return found


def test_only_skillbank_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"skillbank"}
    assert "skillbank/pretrained/run_anywhere.h5" in names
    assert "skillbank/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (elsewhere / "envs").mkdir()  # a user's own, which must not be taken for ours
    (elsewhere / "envs" / "__init__.py").write_text("raise RuntimeError('not this one')")
    code = f"""
import skillbank, gymnasium
assert skillbank.__file__.startswith({str(site)!r}), skillbank.__file__
assert skillbank.envs.__file__.startswith({str(site)!r}), skillbank.envs.__file__
assert gymnasium.make("skillbank/PointMassRun-v0").reset(seed=0)[0].shape == (2,)
assert gymnasium.make_vec("skillbank/MultiGoal-v0", num_envs=3).reset(seed=0)[0].shape == (3, 2)
assert "run_anywhere" in skillbank.Bank().names()
skill = skillbank.Bank().load("run_anywhere")
assert skill.predict([[0.0] * skill.spec.observation_size])[0].shape == (1, 8)
"""
    where = {"PYTHONPATH": str(site), "SKILLBANK_HOME": str(tmp_path / "bank")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere, env=os.environ | where, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_importing_is_light() -> None:
    code = (
        "import sys, skillbank\n"
        "heavy = {'torch', 'mujoco', 'dm_control', 'matplotlib', 'h5py', 'scipy', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    run_anew(code)


def test_everything_public_is_there_by_its_name() -> None:
    code = (
        "import skillbank\n"
        "assert all(getattr(skillbank, name) is not None for name in skillbank.__all__)\n"
        "assert skillbank.compose.mean.__module__.startswith('skillbank.compose')"
    )
    run_anew(code)


def run_anew(code: str) -> None:
    """Run a program that must not fail in a process of its own."""
    subprocess.run([sys.executable, "-c", code], check=True)
