"""Throw mutated skill files at the reader: only the named errors may come out.

    python tests/attacks/fuzz.py EXECUTIONS SEED

The seeds are a good file and the hostile ones. Every mutant gets a right hash of its body, so that
the HDF5 library really sees it; the content hash stays, so whatever is accepted must be the good
skill. The library runs as in production, without rights and to be lost, but in a fork instead
of a new interpreter, which is a hundred times faster. Crashes of the library are counted: they are
ReaderStopped, one clear error, as they would be for a user.
"""

import collections
import contextlib
import json
import os
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from hostile_files import HEADER, KINDS, crafted, good, header  # noqa: E402

from skillbank import errors, storage, storage_hdf5, storage_reader, storage_sandbox  # noqa: E402

INTERESTING = [0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 1 << 32, (1 << 63) - 1]
BATCH = 50  # mutants that one fork looks at


def seeds() -> list[tuple[bytes, storage.Header]]:
    """Bodies to start from, with what their headers say."""
    found = [good()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "skill.h5"
        crafted(path)
        found.append(path.read_bytes())
        for kind in KINDS:
            with contextlib.suppress(IsADirectoryError, FileNotFoundError):
                path.unlink()
            if kind.name in ("folder", "ten_thousand_objects", "groups_without_end"):
                continue
            for canary in Path(folder).glob("canary"):
                canary.unlink()
            kind.make(path)
            with contextlib.suppress(errors.SkillbankError):
                found.append(storage.read_bytes(path))
    parsed = []
    for image in found:
        with contextlib.suppress(errors.SkillFileError):
            head = storage.parse_header(image)
            start = HEADER + head.metadata_offset
            storage.parse_metadata(image[start : start + head.metadata_length])
            if len(image) < 1 << 16:
                parsed.append((image[HEADER:], head))
    return parsed


def mutate(body: bytes, rng: random.Random) -> bytes:
    """Change a body in one to four places, mostly where HDF5 keeps its structure."""
    data = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place = (
            rng.randrange(len(data)) if rng.random() < 0.7 else 8 * rng.randrange(len(data) // 8)
        )
        way = rng.randrange(7)
        if way == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[place] = rng.randrange(256)
        elif way == 2:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(INTERESTING) % (1 << 8 * width)
            data[place : place + width] = value.to_bytes(width, "little")
        elif way == 3:
            data[place : place + 8] = rng.randrange(len(data)).to_bytes(8, "little")
        elif way == 4:
            source, length = rng.randrange(len(data)), rng.choice((1, 4, 8, 16, 64, 512))
            data[place : place + length] = data[source : source + length]
        elif way == 5:
            del data[place : place + rng.choice((1, 8, 64, len(data)))]
        else:
            data[place:place] = rng.randbytes(rng.choice((1, 8, 64)))
        if len(data) < 16:
            return bytes(data)
    return bytes(data)


def look_in_a_fork(bodies: list[bytes]) -> list[bytes | None]:
    """What the HDF5 library says of each body; None where it took the process down."""
    answers: list[bytes | None] = []
    while len(answers) < len(bodies):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            memory = 2 * max(map(len, bodies)) + storage_reader.EXTRA_MEMORY
            storage_reader.give_up_rights(memory, storage_sandbox.MAX_ANSWER)
            for body in bodies[len(answers) :]:
                os.write(writing, storage_hdf5.answer(body) + b"\n")
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answers += pipe.read().splitlines()
        _, status = os.waitpid(child, 0)
        if status:
            answers.append(None)
    return answers


def fuzz(executions: int, seed: int) -> dict[str, float]:
    """Run; return how often each outcome was met.

    Raises:
        AssertionError: a mutant was accepted as something else than the good skill.
        Exception: whatever else the reader let through.
    """
    rng, bodies, met = random.Random(seed), seeds(), collections.Counter[str]()
    wanted, slowest = storage.decode(good()), 0.0
    for first in range(0, executions, BATCH):
        chosen = [
            bodies[0] if rng.random() < 0.3 else rng.choice(bodies)
            for _ in range(min(BATCH, executions - first))
        ]
        mutants = [mutate(body, rng) for body, _ in chosen]
        begin = time.monotonic()
        answers = look_in_a_fork(mutants)
        slowest = max(slowest, time.monotonic() - begin)
        for (_, old), mutant, answer in zip(chosen, mutants, answers, strict=True):

            def look(_: bytes, answer: bytes | None = answer) -> storage.Contents:
                if answer is None:
                    raise errors.ReaderStopped("opening it stopped the reader")
                return storage_sandbox.parse(answer)

            head = header(mutant, old.metadata_offset, old.metadata_length, old.content_hash)
            try:
                stored = storage.decode(head + mutant, look=look)
            except errors.SkillFileError as error:
                met[type(error).__name__] += 1
                continue
            met["accepted"] += 1
            assert stored.content_hash == storage.content_hash(stored.spec, stored.parameters)
            assert stored.content_hash == wanted.content_hash
            for name, array in wanted.parameters.items():
                assert stored.parameters[name].tobytes() == array.tobytes()
    return {**dict(sorted(met.items())), f"slowest {BATCH} (s)": round(slowest, 3)}


if __name__ == "__main__":
    warnings.simplefilter("error")
    outcome = fuzz(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write(json.dumps(outcome) + "\n")
