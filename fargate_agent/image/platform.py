"""Which images this machine can run: its architecture, and what its processor knows.

Source: OCI image specification, image-index.md, "platform".
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

OS: Final = "linux"

_ARCHITECTURES: Final[Mapping[str, str]] = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
}
"""Other names, from the kernel's and those that some builders write.

Source: containerd, platforms/database.go, `normalizeArch`.
"""

_BASE_VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {"amd64": ("", "v1"), "arm64": ("", "v8")}
"""Variants that every machine of the architecture runs."""

_AMD64_LEVELS: Final[Mapping[str, frozenset[str]]] = {
    "v2": frozenset({"cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
    "v3": frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    "v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
}
"""What each level needs beside those below it, as /proc/cpuinfo names it.

Source: x86-64 psABI, "Micro-Architecture Levels"; Linux, arch/x86/include/asm/cpufeatures.h.
"""

_EMULATORS: Final[Mapping[str, str]] = {"qemu-x86_64": "amd64", "qemu-aarch64": "arm64"}
"""How Debian and Docker register QEMU with binfmt_misc. Source: QEMU, qemu-binfmt-conf.sh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What an image was built for."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine can run."""

    architecture: str
    variants: Mapping[str, tuple[str, ...]]
    """By architecture, its own and those that it emulates: the variants, the best first."""


def parse_platform(os: str, architecture: str, variant: str) -> Platform:
    """Return the platform under the names that the specification has."""
    architecture = architecture.lower()
    return Platform(
        os=os.lower(),
        architecture=_ARCHITECTURES.get(architecture, architecture),
        variant=variant.lower(),
    )


def read_machine(proc: Path = Path("/proc"), kernel_name: str | None = None) -> Machine:
    """Read what this machine can run; `kernel_name` is its architecture as `uname -m` has it."""
    name = kernel_name or platform.machine()
    own = _ARCHITECTURES.get(name, name)
    variants = {own: _BASE_VARIANTS.get(own, ("",))}
    if own == "amd64":
        variants[own] += _read_amd64_levels(proc)
    for emulator, architecture in _EMULATORS.items():
        state = _read(proc / "sys" / "fs" / "binfmt_misc" / emulator)
        if architecture not in variants and state.startswith("enabled"):
            variants[architecture] = _BASE_VARIANTS[architecture]
    return Machine(architecture=own, variants=variants)


def _read_amd64_levels(proc: Path) -> tuple[str, ...]:
    """Return the levels above the first that the processor has, the highest first.

    The image that runs everywhere is taken before these where an index has both, as by Docker.
    """
    flags: set[str] = set()
    for line in _read(proc / "cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            flags = set(value.split())
            break
    levels: list[str] = []
    for level, needed in _AMD64_LEVELS.items():
        if not needed <= flags:
            break
        levels.insert(0, level)
    return tuple(levels)


def _read(path: Path) -> str:
    """Return a file of the kernel; empty if it isn't there."""
    try:
        return path.read_text()
    except OSError:
        return ""
