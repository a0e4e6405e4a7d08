"""What a definition asks for around its program: an init, an open stdin, kernel parameters."""

import pytest

from fargate_agent.errors import CannotCreateContainerError
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root


def controls(**values: str) -> list[dict[str, str]]:
    """Kernel parameters, by name with `__` for dots."""
    return [
        {"namespace": name.replace("__", "."), "value": value} for name, value in values.items()
    ]


async def test_kernel_parameters_are_those_of_the_definition(bench: Bench) -> None:
    names = {
        "net__core__somaxconn": "1234",
        "net__ipv4__ip_unprivileged_port_start": "1024",
        "kernel__msgmax": "12345",
        "kernel__sem": "32000 1024000000 500 4000",
        "kernel__shm_rmid_forced": "1",
        "fs__mqueue__msg_max": "77",
    }
    paths = [f"/proc/sys/{name.replace('__', '/')}" for name in names]

    finished = await bench.run(f"cat {' '.join(paths)}", systemControls=controls(**names))

    lines = [" ".join(line.split()) for line in finished.output.splitlines()]
    assert lines == list(names.values())


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        pytest.param("net.ipv4.no_such", "1", "no such file or directory", id="unknown"),
        pytest.param("net.core.bpf_jit_enable", "0", "no such file or directory", id="the host's"),
        pytest.param("net.core.somaxconn", "many", "invalid argument", id="no number"),
        pytest.param("kernel.msgmni", "-1", "invalid argument", id="out of range"),
    ],
)
async def test_kernel_parameter_that_is_refused_is_named(
    bench: Bench, name: str, value: str, why: str
) -> None:
    control = {"namespace": name, "value": value}
    task = bench.plan({"command": ["true"], "systemControls": [control]})
    await bench.runtime.prepare(task)

    with pytest.raises(CannotCreateContainerError) as error:
        await bench.create(task)

    assert error.value.reason == (
        f"CannotCreateContainerError: unable to set the kernel parameter {name}: {why}"
    )
