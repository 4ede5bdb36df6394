"""Runs the units of a benchmark that have no result yet, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click


def run_missing(script: str, units: Iterable[str], results: Path, only: str, workers: int) -> None:
    """Run ``script unit NAME`` for every unit that has no ``NAME.json`` yet.

    Args:
        script: The script whose command ``unit`` writes one result.
        units: The units' names.
        results: Folder of the results.
        only: Run only units whose name contains this.
        workers: Processes at once, one thread each.
    """
    results.mkdir(parents=True, exist_ok=True)
    todo = [name for name in units if only in name and not (results / f"{name}.json").exists()]

    def work(name: str) -> None:
        command = [sys.executable, script, "unit", name]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, check=False, env=environment).returncode
        click.echo(f"{name}: {'done' if code == 0 else f'failed ({code})'}")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, todo))
