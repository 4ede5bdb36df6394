"""Have the HDF5 library look at a body that nobody vouches for, where it can do no harm.

The library runs in a separate process (``storage_reader``) that holds the body, may
open nothing else, and answers with a table of contents. Its answer is checked like any input.
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
    """Have a separate process say what a body contains.

    Raises:
        SkillFileError: the subclass says why the body is refused; ``ReaderStopped`` that the
            process crashed or ran into a limit.
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
        raise errors.ReaderStopped(f"opening it stopped the reader (status {done.returncode})")
    return parse(text)


def _homes() -> list[str]:
    """Folders of what the reader imports: ``-I`` hides a user's own site and PYTHONPATH."""
    found = (importlib.util.find_spec(name) for name in ("h5py", "numpy"))
    return [str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin]


def _environment() -> dict[str, str]:
    """No HDF5 plug-ins, no secrets; only what the loader may need to find libraries."""
    kept = {k: v for k, v in os.environ.items() if k in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")}
    return kept | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}


def parse(text: bytes) -> list[Extent]:
    """Check an answer: the process that gave it may have been taken over."""
    try:
        kind, answer = json.loads(text)
        if kind == "contents":
            return [_extent(*entry) for entry in answer]
        named = getattr(errors, kind)
        if not issubclass(named, errors.SkillFileError):
            raise TypeError(kind)
        told = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(answer)[:1000])
        refusal: errors.SkillFileError = named(told)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise errors.ReaderStopped("opening it confused the reader") from error
    raise refusal


def _extent(path: str, shape: list[int], offset: int) -> Extent:
    numbers = [offset, *shape]
    if not isinstance(path, str) or any(type(n) is not int or n < 0 for n in numbers):
        raise TypeError(path)
    return Extent(path, tuple(shape), offset)
