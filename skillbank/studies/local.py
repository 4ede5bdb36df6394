"""Units as processes on this machine."""

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from skillbank.studies.scheduler import Event
from skillbank.studies.unit import Places, Unit

# One thread each: several would only wait for each other (docs/performance.md, "Side by side").
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class LocalProcesses:
    """One process for each unit; they end when this one does, even by kill -9.

    Args:
        places: Where their files are.
        workers: Processes at once.
    """

    def __init__(self, places: Places, workers: int) -> None:
        self.places, self.slots = places, workers
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._told: queue.Queue[Event] = queue.Queue()
        self._readers: list[threading.Thread] = []

    def start(self, unit: Unit, parent: Path | None) -> None:
        """Start a unit in a new process; its standard error goes to ``log.txt``."""
        folder = self.places.folder(unit)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "skillbank.studies.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | ONE_THREAD,
                start_new_session=True,  # Ctrl-C reaches only the study, which stops its workers
                text=True,
            )
        order = {
            "unit": unit.model_dump_json(),
            "results": str(self.places.results.absolute()),
            "work": str(self.places.work.absolute()),
            "parent": None if parent is None else str(parent.absolute()),
        }
        self.processes[unit.name] = process
        reader = threading.Thread(target=self._read, args=(unit, process, order), daemon=True)
        reader.start()
        self._readers.append(reader)

    def events(self, timeout: float) -> list[Event]:
        """New events; waits at most ``timeout`` seconds for the first."""
        try:
            found = [self._told.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self._told.empty():
            found.append(self._told.get())
        return found

    def close(self) -> None:
        """Kill all running units; they resume from their last checkpoint when started again."""
        for process in list(self.processes.values()):
            process.kill()
        for reader in self._readers:
            reader.join()

    def _read(self, unit: Unit, process: "subprocess.Popen[str]", order: dict[str, object]) -> None:
        """Send a worker its order and forward its messages, until it ends."""
        assert process.stdin is not None
        assert process.stdout is not None
        last = Event(unit.name, "died")
        with suppress(BrokenPipeError):  # it died at once, which is reported below
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # killed while writing a line
            told = json.loads(line)
            if "steps" in told:
                self._told.put(Event(unit.name, "progress", told["steps"]))
            elif "failed" in told:
                last = Event(unit.name, "failed", text=told["failed"])
            else:
                last = Event(unit.name, next(iter(told)))  # done or busy
        code = process.wait()
        process.stdout.close()
        with suppress(BrokenPipeError):  # input that was never read
            process.stdin.close()
        del self.processes[unit.name]
        log = self.places.folder(unit) / "log.txt"
        if last.kind == "died":
            last = last._replace(text=f"its process ended with {code}; see {log}")
        self._told.put(last)
