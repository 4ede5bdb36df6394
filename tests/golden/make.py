"""Make the golden file of the current format version: ``python tests/golden/make.py``.

Run it once for a format version, when that version is settled, and never again: the file stands for
all files of that version that people have.
"""

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from skill_files import small_spec

from skillbank import storage
from skillbank.spec import CurvePoint, EvaluationRecord, SkillSpec, Symmetry, parameter_shapes

HERE = Path(__file__).parent


def golden_spec() -> SkillSpec:
    """A spec with something in every field."""
    return small_spec(
        name="golden",
        description='Reads for ever: \u2603, "quotes", a line\nand a tab\t.',
        anchored=True,
        symmetries=(
            Symmetry(
                name="turn",
                obs_index=(1, 0),
                obs_sign=(1, -1),
                action_index=(1, 0),
                action_sign=(-1, 1),
            ),
        ),
        learning_curve=(
            CurvePoint(steps=0, updates=0, seconds=0.0, mean_return=-1.5, temperature=0.1),
            CurvePoint(steps=100, updates=10, seconds=0.25, mean_return=1e-7, temperature=0.05),
        ),
        evaluations=(
            EvaluationRecord(
                env_id="skillbank/QuadrupedRun-v0",
                episodes=400,
                seed=7,
                mean_return=0.1 + 0.2,
                interval=(-1.0, 1e16),
                metrics={"net_distance": 35.5},
            ),
        ),
        parents=("ab" * 32,),
        model_hash="cd" * 32,
        versions={"mujoco": "3.17.0", "torch": "2.13.0+cpu"},
    )


def golden_parameters(spec: SkillSpec) -> dict[str, NDArray[np.float32]]:
    """Values that anybody can compute: eighths, counted through all parameters in name order."""
    parameters, count = {}, 0
    for name, shape in sorted(parameter_shapes(spec).items()):
        size = int(np.prod(shape))
        values = (np.arange(count, count + size) % 257 - 128) / 8
        parameters[name] = values.reshape(shape).astype(np.float32)
        count += size
    return parameters


if __name__ == "__main__":
    spec = golden_spec()
    path = HERE / f"format-{storage.FORMAT_VERSION}.h5"
    content = storage.write(path, spec, golden_parameters(spec))
    document = json.loads(storage.metadata_document(spec))
    known = {"content_hash": content, "metadata": document}
    path.with_suffix(".json").write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
