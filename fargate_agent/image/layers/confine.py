"""The process is confined to one directory, a few capabilities and a few system calls.

It reads what anyone may have put into a registry. Whatever goes wrong in it, it can make files in
its directory and nothing else: no socket, no program, no process, no mount, no file outside.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct

from fargate_agent.image.layers.headers import UnknownError

MAX_MEMORY_BYTES = 1 << 30
"""Of address space; with the window of Zstandard a fifth of it is used."""

MAX_FILES = 32

OOM_SCORE_ADJ = 1000
"""The kernel ends it before all else if memory is short: containerd unpacks the layer then. The
agent has -900, which a process inherits. Source: Linux, proc(5), /proc/PID/oom_score_adj."""

# Source: Linux, include/uapi/linux/capability.h.
CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "SETFCAP": 31}
"""What it takes to make files of all owners and modes, and files with capabilities.

Not MKNOD: a process that can make devices can make that of the disk, and open it. Layers with
devices are left to containerd. Whiteouts need no capability. Source: Linux 5.8, fs/namei.c,
`vfs_mknod`, `WHITEOUT_DEV`.
"""

_CAPABILITY_VERSION_3 = 0x20080522

# Source: Linux, include/uapi/linux/prctl.h.
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
_SECCOMP_MODE_FILTER = 2
_LAST_CAPABILITY = 63

# Source: Linux, include/uapi/linux/seccomp.h, bpf_common.h.
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_OFFSET, _ARCH_OFFSET = 0, 4
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

# Source: Linux, arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h;
# include/uapi/linux/audit.h.
_AMD64 = (
    0xC000003E,
    # read write open close stat fstat lstat lseek mmap mprotect munmap brk, rt_sig…
    (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15)
    # mremap madvise getpid exit fcntl mkdir rmdir link unlink symlink readlink chmod fchmod
    + (25, 28, 39, 60, 72, 83, 84, 86, 87, 88, 89, 90, 91)
    # fchown lchown umask mknod statfs fstatfs setxattr lsetxattr fsetxattr futex getdents64
    + (93, 94, 95, 133, 137, 138, 188, 189, 190, 202, 217)
    # exit_group openat mkdirat mknodat fchownat newfstatat unlinkat linkat symlinkat readlinkat
    + (231, 257, 258, 259, 260, 262, 263, 265, 266, 267)
    # fchmodat utimensat getrandom statx
    + (268, 280, 318, 332),
)
_ARM64 = (
    0xC00000B7,
    # setxattr lsetxattr fsetxattr fcntl mknodat mkdirat unlinkat symlinkat linkat statfs fstatfs
    (5, 6, 7, 25, 33, 34, 35, 36, 37, 43, 44)
    # fchmod fchmodat fchownat fchown openat close getdents64 lseek read write readlinkat newfstatat
    + (52, 53, 54, 55, 56, 57, 61, 62, 63, 64, 78, 79)
    # fstat utimensat exit exit_group futex rt_sigaction rt_sigprocmask rt_sigreturn umask getpid
    + (80, 88, 93, 94, 98, 134, 135, 139, 166, 172)
    # brk munmap mremap mmap mprotect madvise getrandom statx
    + (214, 215, 216, 222, 226, 233, 278, 291),
)
_CALLS = {"x86_64": _AMD64, "aarch64": _ARM64}

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine(directory: str) -> None:
    """Make `directory` the root of this process, and give up all that isn't needed to fill it.

    Raises:
        UnknownError: the processor has no list of system calls.
        OSError: the kernel refuses a step.
    """
    calls = _CALLS.get(platform.machine())
    if calls is None:
        raise UnknownError(f"a processor of type {platform.machine()}")
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write(str(OOM_SCORE_ADJ))
    os.umask(0)
    os.chroot(directory)
    os.chdir("/")
    _limit_resources()
    _drop_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _filter_calls(*calls)


def _limit_resources() -> None:
    """Bound memory and files, unless that is forbidden (EPERM).

    The agent's unit forbids setrlimit(2), but not prlimit(2), which glibc calls instead.
    """
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except PermissionError:
        return


def _drop_capabilities() -> None:
    """Keep `CAPABILITIES`, as far as this process has them.

    The unit of the agent forbids to change them (EPERM); it has few itself, and without the system
    calls that are filtered out below these are of no use.
    """
    for number in range(_LAST_CAPABILITY + 1):
        if number not in CAPABILITIES.values():
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    had = ctypes.create_string_buffer(24)
    if _libc.capget(header, had) != 0:
        return
    _, low, _, _, _, _ = struct.unpack("=6I", had.raw)
    kept = low & sum(1 << number for number in CAPABILITIES.values())
    _libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0))


def _filter_calls(architecture: int, allowed: tuple[int, ...]) -> None:
    """Let every other system call fail with EPERM."""
    refuse = _ERRNO | errno.EPERM
    instructions = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, refuse),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
    ]
    for left, number in zip(range(len(allowed), 0, -1), allowed, strict=True):
        instructions.append((_JUMP_EQUAL, left, 0, number))
    instructions += [(_RETURN, 0, 0, refuse), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    program = _Program(len(instructions), code)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _prctl(option: int, value: int, third: int = 0) -> None:
    words = (ctypes.c_ulong(word) for word in (value, third, 0, 0))
    if _libc.prctl(option, *words) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")
