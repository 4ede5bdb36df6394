"""Running many units: finished units are skipped, dead ones are retried, parents run first.

Processes and machines are left to an ``Executor``.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from skillbank.studies.performing import without_parent
from skillbank.studies.unit import (
    Places,
    Unit,
    diverged,
    finished,
    shipped_reference,
    startable,
    write_json,
)

ATTEMPTS = 3  # at a unit whose process dies
BUSY_SECONDS = 20.0  # before checking again a unit that another command works on
POLL_SECONDS = 1.0


class Event(NamedTuple):
    """An executor's report about a unit that it runs."""

    unit: str  # its name
    kind: str  # progress, done, failed (by an error), died (without a report), busy (elsewhere)
    steps: int = 0
    text: str = ""  # what went wrong


class Executor(Protocol):
    """Runs units somewhere, up to ``slots`` at once."""

    slots: int

    def start(self, unit: Unit, parent: Path | None) -> None:
        """Start a unit; its result file exists once ``done`` is reported."""

    def events(self, timeout: float) -> list[Event]:
        """New events; waits at most ``timeout`` seconds for the first."""

    def close(self) -> None:
        """Stop all running units."""


@dataclass
class Standing:
    """The state of a study: the scheduler writes it, the display reads it."""

    units: tuple[Unit, ...]
    done: set[str] = field(default_factory=set)
    running: dict[str, Event] = field(default_factory=dict)  # the latest event of each
    failed: dict[str, str] = field(default_factory=dict)  # name: why
    skipped: int = 0  # had a result already
    retries: int = 0


def run(
    units: Sequence[Unit],
    places: Places,
    executor: Executor,
    show: Callable[[Standing], None],
) -> Standing:
    """Run every unit without an up-to-date result, and the parents that it starts from.

    Args:
        units: The study's units, including the parents that they name.
        places: Where results and skills are.
        executor: Runs them.
        show: Called after every change, at least once a second.

    Raises:
        ValueError: A parent is not among the units.
    """
    by_name = {unit.name: unit for unit in units}
    standing = Standing(tuple(by_name.values()))
    todo = unfinished(standing.units, places)
    standing.done = set(by_name) - {unit.name for unit in todo}
    standing.skipped = len(standing.done)
    attempts = dict.fromkeys(by_name, 0)
    not_before = dict.fromkeys(by_name, 0.0)
    changed = True  # something ended since orphans were looked for
    try:
        while todo or standing.running:
            if changed:
                left = _drop_orphans(todo, standing, places)
                changed, todo = len(left) < len(todo), left  # these may have children too
            for unit in _ready(todo, standing, not_before):
                if len(standing.running) >= executor.slots:
                    break
                todo.remove(unit)
                if _complete(unit, todo, places):  # another command did it, say
                    standing.done.add(unit.name)
                    changed = True
                    continue
                parent = _parent(unit)
                executor.start(unit, places.learned(by_name[parent]) if parent else None)
                standing.running[unit.name] = Event(unit.name, "progress")
            show(standing)
            for event in executor.events(POLL_SECONDS):
                if event.kind == "progress":
                    standing.running[event.unit] = event
                    continue
                del standing.running[event.unit]
                changed = True
                if event.kind == "done":
                    standing.done.add(event.unit)
                    todo += _left_behind(event.unit, standing, places)
                elif event.kind == "busy":
                    not_before[event.unit] = time.monotonic() + BUSY_SECONDS
                    todo.append(by_name[event.unit])
                elif event.kind == "died" and attempts[event.unit] + 1 < ATTEMPTS:
                    attempts[event.unit] += 1
                    standing.retries += 1
                    todo.insert(0, by_name[event.unit])
                else:
                    standing.failed[event.unit] = event.text
        show(standing)
    finally:
        executor.close()
    return standing


def unfinished(units: Sequence[Unit], places: Places) -> list[Unit]:
    """The units that must run, in order.

    Those without an up-to-date result, those whose parent has none, and those whose skill is
    missing but needed by another unit.

    Raises:
        ValueError: A parent is not among the units.
    """
    by_name = {unit.name: unit for unit in units}
    missing = {_parent(unit) for unit in units} - set(by_name) - {None}
    if missing:
        raise ValueError(f"parents that are no units of this study: {sorted(map(str, missing))}")
    todo = {unit.name for unit in units if not finished(unit, places)}
    todo |= {unit.name for unit in units if _parent(unit) in todo}
    needed = {_parent(by_name[name]) for name in todo}
    todo |= {
        name
        for name in needed
        if name is not None
        and not startable(by_name[name], places)
        and not diverged(by_name[name], places)
    }
    return [unit for unit in units if unit.name in todo]


def _complete(unit: Unit, todo: list[Unit], places: Places) -> bool:
    """Whether a unit has its result and, if one of ``todo`` starts from it, its skill."""
    if diverged(unit, places):
        return True
    needed = any(_parent(other) == unit.name for other in todo)
    return finished(unit, places) and (not needed or startable(unit, places))


def _left_behind(parent: str, standing: Standing, places: Places) -> list[Unit]:
    """Take out of ``done``, and return, what started from another skill than the parent has now.

    On another processor a parent that is trained again for a missing child has other parameters.
    """
    left = [
        unit
        for unit in standing.units
        if _parent(unit) == parent and unit.name in standing.done and not finished(unit, places)
    ]
    standing.done -= {unit.name for unit in left}
    standing.skipped -= len(left)
    return left


def _parent(unit: Unit) -> str | None:
    return None if shipped_reference(unit.parent) else unit.parent


def _ready(todo: list[Unit], standing: Standing, not_before: dict[str, float]) -> list[Unit]:
    """Units that can start: their parent is done, and no other command was just working on them."""
    now = time.monotonic()
    return [
        unit
        for unit in todo
        if (_parent(unit) is None or _parent(unit) in standing.done)
        and not_before[unit.name] <= now
    ]


def _drop_orphans(todo: list[Unit], standing: Standing, places: Places) -> list[Unit]:
    """Take out the units whose parent left no skill; returns the others.

    If the parent failed, they fail; if its training diverged, they are recorded as diverged too.
    """
    left = []
    by_name = {unit.name: unit for unit in standing.units}
    for unit in todo:
        parent = _parent(unit)
        if parent in standing.failed:
            standing.failed[unit.name] = f"its parent {parent} failed"
        elif parent in standing.done and diverged(by_name[parent], places):
            write_json(places.result(unit), without_parent(unit))
            standing.done.add(unit.name)
        else:
            left.append(unit)
    return left
