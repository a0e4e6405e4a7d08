"""Loop devices: a file as a block device, which goes when nothing has it open or mounted any more.

Source: Linux, include/uapi/linux/loop.h; Documentation/admin-guide/devices.txt. All functions
block.
"""

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONTROL: Final = Path("/dev/loop-control")
MAJOR: Final = 7
"""Of every loop device."""

_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_GET_STATUS64: Final = 0x4C05
_LO_FLAGS_READ_ONLY: Final = 1
_LO_FLAGS_AUTOCLEAR: Final = 4
_LO_FLAGS_DIRECT_IO: Final = 16

_INFO: Final = struct.Struct("=5Q4I64s64s32s2Q")
"""`struct loop_info64`."""
_CONFIG: Final = struct.Struct(f"=2I{_INFO.size}s64x")
"""`struct loop_config`: the file, the block size, `loop_info64`, and what is reserved."""
_FLAGS_FIELD: Final = 8
"""Where `lo_flags` is in `loop_info64`."""

_MAX_TRIES: Final = 200
_PAUSE_S: Final = 0.005
"""Between two tries: who else wants one gets it meanwhile."""


class NoLoopDevicesError(OSError):
    """This machine gives no loop device to this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopDevice:
    """A loop device that is open."""

    path: Path
    descriptor: int
    is_direct: bool
    """Whether the page cache of the host is bypassed. The file system that holds the file can
    refuse that."""


@contextmanager
def attach(backing: int, *, read_only: bool = False) -> Iterator[LoopDevice]:
    """Attach an open file to a loop device, and hold the device open during the body.

    The device clears itself: it lives on after the body only while it is mounted.

    Raises:
        NoLoopDevicesError: the machine gives none.
        OSError: the file can't be attached.
    """
    for _ in range(_MAX_TRIES):
        path, device = _open_free(read_only=read_only)
        try:
            if _configure(device, backing, read_only=read_only):
                yield LoopDevice(path=path, descriptor=device, is_direct=_is_direct(device))
                return
        finally:
            os.close(device)
        time.sleep(_PAUSE_S)
    raise NoLoopDevicesError(errno.EBUSY, "no loop device is free", str(CONTROL))


def check_loop_devices(control: Path | None = None) -> None:
    """Return if this process may ask for a loop device; `control` is another path of `CONTROL`.

    Raises:
        NoLoopDevicesError: it may not, or there are none.
    """
    os.close(_open(control or CONTROL, os.O_RDWR))


def _open_free(*, read_only: bool) -> tuple[Path, int]:
    control = _open(CONTROL, os.O_RDWR)
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    except OSError as error:  # e.g. ENOSPC: `max_loop` of the module
        raise NoLoopDevicesError(error.errno, error.strerror, str(CONTROL)) from error
    finally:
        os.close(control)
    path = Path(f"/dev/loop{number}")
    return path, _open(path, os.O_RDONLY if read_only else os.O_RDWR)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise NoLoopDevicesError(error.errno, error.strerror, str(path)) from error


def _configure(device: int, backing: int, *, read_only: bool) -> bool:
    """Attach the file; False if somebody else has taken the device."""
    flags = _LO_FLAGS_AUTOCLEAR | _LO_FLAGS_DIRECT_IO
    flags |= _LO_FLAGS_READ_ONLY if read_only else 0
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, b"", b"", b"", 0, 0)
    try:
        fcntl.ioctl(device, _LOOP_CONFIGURE, _CONFIG.pack(backing, 0, info))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _is_direct(device: int) -> bool:
    info = bytearray(_INFO.size)
    with suppress(OSError):
        fcntl.ioctl(device, _LOOP_GET_STATUS64, info)
    return bool(_INFO.unpack(info)[_FLAGS_FIELD] & _LO_FLAGS_DIRECT_IO)
