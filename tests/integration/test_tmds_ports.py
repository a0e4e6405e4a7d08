"""No port of a task is taken by its metadata endpoint, and nobody but the task gets there."""

import socket
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.namespaces import inside, socket_in_netns
from tests.fixtures.network import run_ip
from tests.fixtures.tmds import DEADLINE_S, Endpoint, ask, fetch

pytestmark = pytest.mark.root


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "169.254.172.2"])
async def test_a_container_may_listen_on_the_same_port(
    address: str, endpoint: Endpoint, netns: Path
) -> None:
    task = await endpoint.add(netns, "web")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with socket_in_netns(netns, family, socket.SOCK_STREAM) as listener:
        listener.bind((address, 80))
        listener.listen()

        assert (await fetch(netns, f"/v4/{task.containers[0].metadata_id}")).status == 200
        with socket_in_netns(netns, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect(("169.254.172.2", 80))
            accepted, _ = listener.accept()
            accepted.close()


async def test_all_ports_of_a_task_are_free(endpoint: Endpoint, netns: Path) -> None:
    await endpoint.add(netns, "web")

    with inside(netns):
        for table in ("tcp", "tcp6", "udp", "udp6"):
            lines = Path(f"/proc/thread-self/net/{table}").read_text().splitlines()
            assert len(lines) == 1, lines


async def test_who_asks_from_another_address_is_refused(endpoint: Endpoint, netns: Path) -> None:
    """Such as a container that makes its own frames."""
    run_ip("address", "add", "10.213.77.7/32", "dev", "lo", netns=netns)
    task = await endpoint.add(netns, "web")

    with socket_in_netns(netns, socket.AF_INET, socket.SOCK_STREAM) as strange:
        strange.settimeout(DEADLINE_S)
        strange.bind(("10.213.77.7", 0))
        strange.connect(("169.254.170.2", 80))

        assert await ask(strange) == b""
    assert (await fetch(netns, f"/v4/{task.containers[0].metadata_id}")).status == 200


async def test_a_task_without_the_interface_is_refused_with_a_reason(
    endpoint: Endpoint, netns: Path
) -> None:
    run_ip("link", "del", "eth0", netns=netns)

    with pytest.raises(ResourceInitializationError) as refused:
        await endpoint.add(netns, "web")

    assert refused.value.detail == "task metadata endpoint 169.254.170.2:80: No such device"
