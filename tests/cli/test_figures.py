"""Pictures: that they show what they should, seen through matplotlib's own objects."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure

import skillbank
from skillbank import figures
from skillbank.errors import StorageError
from skillbank.evaluation import Evaluation
from skillbank.spec import CurvePoint


class Arena(NamedTuple):
    walls: tuple[tuple[float, float, float, float], ...]
    bounds: tuple[float, float, float, float]
    targets: tuple[tuple[float, float], ...]
    success_radius: float = 0.5


ROOM = Arena(
    ((-1.0, -1.0, 5.0, 0.0), (-1.0, 4.0, 5.0, 5.0)),
    (-1.0, -1.0, 5.0, 5.0),
    ((3.0, 3.0), (0.5, 2.0)),
)
HALL = Arena(((-80.0, 2.0, 80.0, 3.0), (-80.0, -3.0, 80.0, -2.0)), (-80.0, -3.0, 80.0, 3.0), ())


def evaluation(*traces: Any) -> Evaluation:
    count = len(traces)
    paths = tuple(np.asarray(trace, float) for trace in traces)
    return Evaluation("task", 0, np.zeros(count), np.ones(count), {}, paths)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, to look into."""
    kept: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **named: Any) -> None:
        kept.append(self)
        save(self, *args, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def test_learning_curve_has_points_marks_and_alpha(tmp_path: Path, drawn: list[Figure]) -> None:
    curve = [
        CurvePoint(steps=s, updates=s, seconds=s, mean_return=2.0 * s, temperature=1.0 / (s + 1))
        for s in range(5)
    ]
    path = tmp_path / "deep" / "curve.png"
    figures.learning_curve(curve, path, title="mine", marks={"before": 3.0})
    assert path.read_bytes().startswith(b"\x89PNG")
    left, right = drawn[0].axes
    assert list(left.lines[0].get_ydata()) == [0, 2, 4, 6, 8]
    assert list(left.lines[1].get_ydata()) == [3, 3]
    assert left.lines[1].get_label() == "before"
    assert right.lines[0].get_ydata()[-1] == pytest.approx(0.2)


def test_constant_alpha_is_not_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    point = CurvePoint(steps=1, updates=1, seconds=1, mean_return=1, temperature=0.1)
    figures.learning_curve([point], tmp_path / "curve.svg", title="mine")
    assert len(drawn[0].axes) == 1
    assert b"<svg" in (tmp_path / "curve.svg").read_bytes()


def test_traces_show_walls_targets_and_every_episode(tmp_path: Path, drawn: list[Figure]) -> None:
    one, two = evaluation([[0, 1], [1, 2]], [[0, 1], [4, 3]]), evaluation([[0, 1], [3, 3]])
    figures.traces([("before", one), ("after", two)], ROOM, tmp_path / "traces.png")
    before, after = drawn[0].axes
    assert (before.get_title(), after.get_title()) == ("before", "after")
    walls, targets = before.patches[: len(ROOM.walls)], before.patches[len(ROOM.walls) :]
    assert [wall.get_xy() for wall in walls] == [(-1.0, -1.0), (-1.0, 4.0)]  # type: ignore[attr-defined]
    assert tuple(target.center for target in targets) == ROOM.targets  # type: ignore[attr-defined]
    assert len(before.lines) == 2 + 1  # and the starts
    assert np.array_equal(after.lines[0].get_xydata(), [[0, 1], [3, 3]])
    assert before.get_xlim() == (-1.0, 5.0)
    assert before.get_aspect() == 1.0


def test_a_long_hallway_is_cut_where_nobody_went(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.traces([("", evaluation([[0, 0], [12, 1]]))], HALL, tmp_path / "traces.png")
    low, high = drawn[0].axes[0].get_xlim()
    assert -3.0 < low < 0.0
    assert 12.0 < high < 15.0
    assert drawn[0].axes[0].get_ylim() == (-3.0, 3.0)


def test_an_open_floor_is_as_large_as_the_traces(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.traces([("", evaluation([[0, 0], [10, -4]]))], None, tmp_path / "traces.png")
    assert drawn[0].axes[0].get_xlim() == pytest.approx((-0.5, 10.5), abs=1e-3)


def test_no_traces_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no positions"):
        figures.traces([("", evaluation())], None, tmp_path / "traces.png")


def test_figure_1_has_reward_and_three_states(
    tmp_path: Path, drawn: list[Figure], tiny_skill: skillbank.Skill
) -> None:
    goals = np.array([[5.0, 0.0], [-5.0, 0.0]])

    def reward(places: Any) -> Any:
        return -np.square(places[:, np.newaxis] - goals).sum(2).min(1)

    some = evaluation([[0, 0], [4, 0]])
    figures.multi_goal(tiny_skill, some, reward, goals, tmp_path / "figure_1.png")
    axes = drawn[0].axes
    assert len(axes) == 1 + len(figures.FIGURE_1_STATES)
    for one, state in zip(axes[1:], figures.FIGURE_1_STATES, strict=True):
        sampled = one.lines[0].get_xydata()
        expected = tiny_skill.sample(np.array([state], np.float32), len(sampled), seed=0)[0]
        assert np.array_equal(sampled, expected)


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        figures.traces([("", evaluation([[0, 0], [1, 1]]))], None, tmp_path / "file" / "traces.png")


def test_matplotlib_is_imported_when_drawing_and_opens_no_window() -> None:
    import subprocess
    import sys

    code = (
        "import sys, skillbank.figures as f; assert 'matplotlib' not in sys.modules\n"
        "f.new_figure(1, 1); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
