"""Listing the data sets of an untrusted HDF5 body in a sandboxed process.

The HDF5 library runs in a separate process (``storage_reader``) that holds the body, cannot open
anything else, and answers with a table of contents. The answer is validated like any other input.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from skillbank import errors

WALL_SECONDS = 60
MAX_ANSWER = 1 << 20  # bytes
PROGRAM = Path(__file__).with_name("storage_reader.py")


class Extent(NamedTuple):
    """Where one data set's bytes lie in a body."""

    path: str
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the body


def contents(body: bytes) -> list[Extent]:
    """List the data sets of a body, using a separate process.

    Raises:
        SkillFileError: the body is refused; the subclass says why. ``ReaderStopped`` means that
            the process crashed or hit a limit.
        StorageError: the process could not be started.
    """
    command = [sys.executable, "-I", str(PROGRAM), str(len(body)), str(MAX_ANSWER), *_homes()]
    try:
        with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as answer:
            question.write(body)
            question.seek(0)
            done = subprocess.run(
                command,
                stdin=question,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                timeout=WALL_SECONDS,
                check=False,
            )
            answer.seek(0)
            text = answer.read(MAX_ANSWER)
    except subprocess.TimeoutExpired as error:
        raise errors.ReaderStopped(f"opening it took more than {WALL_SECONDS} s") from error
    except OSError as error:
        raise errors.StorageError(f"cannot start the reader: {error}") from error
    if done.returncode:
        raise errors.ReaderStopped(f"opening it crashed the reader (status {done.returncode})")
    return parse(text)


def _homes() -> list[str]:
    """Folders of the reader's imports: ``-I`` ignores the user's site-packages and PYTHONPATH."""
    found = (importlib.util.find_spec(name) for name in ("h5py", "numpy"))
    return [str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin]


def _environment() -> dict[str, str]:
    """Environment without HDF5 plug-ins and secrets; keeps only the search paths of libraries."""
    kept = {k: v for k, v in os.environ.items() if k in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")}
    return kept | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}


def parse(text: bytes) -> list[Extent]:
    """Parse and validate an answer: the process that wrote it may be compromised."""
    try:
        kind, answer = json.loads(text)
        if kind == "contents":
            return [_extent(*entry) for entry in answer]
        named = getattr(errors, kind)
        if not issubclass(named, errors.SkillFileError):
            raise TypeError(kind)
        refusal: errors.SkillFileError = named(errors.printable(str(answer)))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise errors.ReaderStopped("opening it led to an invalid answer of the reader") from error
    raise refusal


def _extent(path: str, shape: list[int], offset: int) -> Extent:
    numbers = [offset, *shape]
    if not isinstance(path, str) or any(type(n) is not int or n < 0 for n in numbers):
        raise TypeError(path)
    return Extent(path, tuple(shape), offset)
