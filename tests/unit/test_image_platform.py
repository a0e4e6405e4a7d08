"""What a machine says of its processor, and which variants of images follow."""

from pathlib import Path

import pytest

from fargate_agent.image.platform import parse_platform, read_machine

V1 = "fpu cmov cx8 fxsr mmx sse sse2 syscall lm"
V2 = f"{V1} pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm"
V3 = f"{V2} fma movbe xsave avx f16c abm bmi1 avx2 bmi2"
V4 = f"{V3} avx512f avx512dq avx512cd avx512bw avx512vl"


def proc_of(directory: Path, flags: str) -> Path:
    (directory / "cpuinfo").write_text(
        f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: lm\n"
    )
    return directory


def register(proc: Path, name: str, state: str) -> None:
    file = proc / "sys" / "fs" / "binfmt_misc" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{state}\ninterpreter /usr/bin/{name}\n")


@pytest.mark.parametrize(
    ("flags", "variants"),
    [
        pytest.param("", ("", "v1"), id="nothing-known"),
        pytest.param(V1, ("", "v1"), id="v1"),
        pytest.param(V2, ("", "v1", "v2"), id="v2"),
        pytest.param(V2.replace(" popcnt", ""), ("", "v1"), id="v2-lacks-one"),
        pytest.param(V3, ("", "v1", "v3", "v2"), id="v3"),
        pytest.param(V4.replace(" ssse3", ""), ("", "v1"), id="v4-without-v2"),
        pytest.param(V4, ("", "v1", "v4", "v3", "v2"), id="v4"),
    ],
)
def test_amd64_runs_the_levels_that_its_processor_has(
    tmp_path: Path, flags: str, variants: tuple[str, ...]
) -> None:
    machine = read_machine(proc_of(tmp_path, flags), "x86_64")

    assert machine.architecture == "amd64"
    assert machine.variants == {"amd64": variants}


def test_arm64_runs_its_base(tmp_path: Path) -> None:
    assert read_machine(tmp_path, "aarch64").variants == {"arm64": ("", "v8")}


def test_an_enabled_emulator_adds_an_architecture(tmp_path: Path) -> None:
    proc = proc_of(tmp_path, V1)
    register(proc, "qemu-aarch64", "enabled")
    register(proc, "qemu-x86_64", "enabled")

    assert dict(read_machine(proc, "x86_64").variants) == {
        "amd64": ("", "v1"),
        "arm64": ("", "v8"),
    }


def test_a_disabled_emulator_adds_nothing(tmp_path: Path) -> None:
    proc = proc_of(tmp_path, V1)
    register(proc, "qemu-aarch64", "disabled")

    assert list(read_machine(proc, "x86_64").variants) == ["amd64"]


def test_this_machine_runs_its_own_architecture() -> None:
    machine = read_machine()

    assert machine.architecture in machine.variants


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("linux", "amd64", ""), "linux/amd64"),
        (("Linux", "X86_64", ""), "linux/amd64"),
        (("linux", "aarch64", "V8"), "linux/arm64/v8"),
        (("windows", "riscv64", ""), "windows/riscv64"),
    ],
)
def test_platforms_have_one_name(names: tuple[str, str, str], text: str) -> None:
    assert str(parse_platform(*names)) == text
