"""Give a body that nobody vouches for to the HDF5 library, in a process that can do no harm.

Run as a program it reads a body from standard input and answers one line of JSON: the table of
contents, or the refusal. Before the body is opened the process gives up, for good, opening and
writing files, more memory than the body needs and more than a few seconds of processor time.
"""

import json
import runpy
import subprocess
import sys
from pathlib import Path

CPU_SECONDS = 10
WALL_SECONDS = 60
EXTRA_MEMORY = 256 << 20  # bytes of address space beyond two copies of the body


def ask(body: bytes) -> tuple[str, object]:
    """Have a separate process open a body.

    Returns:
        ``("contents", [[path, shape, offset], ...])``, ``(error class, sentence)``, or
        ``("ReaderStopped", sentence)`` when the process crashed or ran into a limit.

    Raises:
        OSError: the process could not be started.
    """
    command = [sys.executable, "-I", str(Path(__file__)), str(len(body))]
    environment = {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}  # no plug-ins at all
    try:
        done = subprocess.run(
            command,
            input=body,
            capture_output=True,
            env=environment,
            timeout=WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "ReaderStopped", f"the reader took more than {WALL_SECONDS} s"
    if done.returncode:
        return "ReaderStopped", f"the reader ended with status {done.returncode}"
    try:
        kind, answer = json.loads(done.stdout)
    except ValueError:
        return "ReaderStopped", "the reader gave no answer"
    return str(kind), answer


def _serve() -> None:
    import resource

    # By path: importing skillbank would bring in far more than the reader needs.
    reader = runpy.run_path(str(Path(__file__).with_name("storage_hdf5.py")))
    body = sys.stdin.buffer.read(int(sys.argv[1]))
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if _LINUX else 0
    memory = pages * resource.getpagesize() + 2 * len(body) + EXTRA_MEMORY
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if _LINUX:  # elsewhere address space is not limited, or not per process
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # from here no file can be opened
    answer: tuple[str, object]
    try:
        answer = "contents", reader["contents"](body)
    except reader["Refused"] as refusal:
        answer = refusal.args
    except MemoryError:
        answer = "ReaderStopped", "the reader ran out of its memory"
    except Exception as error:  # noqa: BLE001 - h5py raises many kinds; all mean "not sound"
        answer = "InvalidStructure", f"HDF5 refuses it: {str(error)[:200]}"
    sys.stdout.write(json.dumps(answer))


_LINUX = sys.platform == "linux"

if __name__ == "__main__":
    _serve()
