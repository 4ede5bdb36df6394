"""The sandboxed process that opens a body with the HDF5 library and lists its data sets.

``python -I storage_reader.py LENGTH MAX_ANSWER FOLDER...`` reads LENGTH bytes from standard input,
gives up its rights irrevocably, and writes one line of JSON. It imports nothing from skillbank, to
start quickly; h5py and NumPy are also searched for in the folders.
"""

import ctypes
import os
import platform
import resource
import runpy
import struct
import sys
from pathlib import Path

CPU_SECONDS = 10
EXTRA_MEMORY = 256 << 20  # bytes of address space beyond two copies of the body

# Linux system calls needed for pure computation, with their numbers by machine. All others are
# refused, so a compromised library cannot delete, rename, signal or start anything.
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # the kernel's AUDIT_ARCH constants
_CALLS = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "futex": (202, 98),
    "clock_gettime": (228, 113),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
}


def main() -> None:
    """List the data sets of the body on standard input."""
    length, max_answer = map(int, sys.argv[1:3])
    sys.path += sys.argv[3:]
    # Run by path: importing the package would load far more than is needed here.
    answer = runpy.run_path(str(Path(__file__).with_name("storage_hdf5.py")))["answer"]
    body = sys.stdin.buffer.read(length)
    give_up_rights(2 * length + EXTRA_MEMORY, max_answer)
    os.write(1, answer(body))
    os._exit(0)


def give_up_rights(more_memory: int, max_answer: int) -> None:
    """Set irrevocable limits: no new file, socket or process; little time, memory and output.

    Args:
        more_memory: bytes of address space beyond what is in use.
        max_answer: maximum size of a written file, in bytes.
    """
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: max_answer,
        resource.RLIMIT_NPROC: 0,
    }
    if sys.platform == "linux":  # elsewhere a limit on address space has no effect, or fails
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + more_memory
    limits[resource.RLIMIT_NOFILE] = 0
    libc = ctypes.CDLL(None)
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    if sys.platform == "linux":
        _allow_only_computing(libc)


def _allow_only_computing(libc: ctypes.CDLL) -> bool:
    """Make the kernel refuse all other system calls (seccomp); False if it does not support it."""
    machine = platform.machine()
    if machine not in _MACHINES:
        return False
    column = list(_MACHINES).index(machine)
    numbers = [call[column] for call in _CALLS.values()]
    # Classic BPF, one instruction each: code, jump if true, jump if false, constant.
    load, equal, give = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | 1  # the latter: the call fails with EPERM
    program = [(load, 0, 0, 4), (equal, 1, 0, _MACHINES[machine]), (give, 0, 0, refuse)]
    program += [(load, 0, 0, 0)]
    program += [(equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    program += [(give, 0, 0, refuse), (give, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    set_no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    return not libc.prctl(set_no_new_privileges, 1, 0, 0, 0) and not libc.prctl(
        set_seccomp, filter_mode, ctypes.create_string_buffer(head), 0, 0
    )


if __name__ == "__main__":
    main()
