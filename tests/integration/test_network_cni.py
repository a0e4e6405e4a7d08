"""The CNI plugin, run as a program."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.plan import EniPlan
from tests.fixtures.network import ask_caller, read_host_names, run_ip, serve_caller

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

PLUGIN = Path(__file__).parents[2] / "cni" / "fargate-veth"


@dataclass(frozen=True)
class Plugin:
    """The plugin with the configuration of one container."""

    configuration: dict[str, Any]
    netns: Path | None

    async def run(self, command: str, **changes: Any) -> tuple[int, Any]:
        """Return its exit code and what it said."""
        environment = {"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "net0"}
        if self.netns is not None:
            environment["CNI_NETNS"] = str(self.netns)
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            sys.executable, PLUGIN, stdin=pipe, stdout=pipe, env=environment
        )
        said, _ = await child.communicate(json.dumps({**self.configuration, **changes}).encode())
        assert child.returncode is not None
        return child.returncode, json.loads(said) if said else None


@pytest.fixture
async def plugin(eni: EniPlan, netns: Path, instance: str) -> AsyncIterator[Plugin]:
    configuration = {
        "cniVersion": "1.0.0",
        "name": instance,
        "type": "fargate-veth",
        "eni": eni.id,
        "mac": eni.mac,
        "ip-addresses": [str(eni.address)],
        "gateway-ip-addresses": [str(eni.gateway)],
    }
    plugin = Plugin(configuration, netns)
    yield plugin
    assert (await plugin.run("DEL"))[0] == 0
    assert read_host_names(f"cni-{instance}") == set()


async def test_add_connects_the_container_and_del_takes_it_back(
    plugin: Plugin, eni: EniPlan, netns: Path
) -> None:
    code, result = await plugin.run("ADD")

    assert code == 0
    assert result["interfaces"] == [{"name": "net0", "mac": eni.mac, "sandbox": str(netns)}]
    assert result["ips"] == [
        {"address": str(eni.address), "gateway": str(eni.gateway), "interface": 0}
    ]
    async with serve_caller(None, eni.gateway) as port:
        assert await ask_caller(netns, eni.gateway, port) == str(eni.address.ip)
    assert await plugin.run("DEL") == (0, None)


async def test_check_notices_an_address_that_was_taken_away(plugin: Plugin, netns: Path) -> None:
    await plugin.run("ADD")
    assert await plugin.run("CHECK") == (0, None)

    run_ip("address", "flush", "dev", "net0", netns=netns)

    assert (await plugin.run("CHECK"))[0] == 1


async def test_add_refuses_an_interface_that_is_there_and_leaves_it(
    plugin: Plugin, netns: Path
) -> None:
    run_ip("link", "add", "net0", "type", "bridge", netns=netns)

    code, error = await plugin.run("ADD")

    assert (code, error["msg"]) == (1, "there is an interface net0 already")
    assert "net0" in run_ip("link", netns=netns)


async def test_del_succeeds_without_a_namespace(plugin: Plugin) -> None:
    await plugin.run("ADD")

    assert await Plugin(plugin.configuration, None).run("DEL") == (0, None)


@pytest.mark.parametrize(
    ("command", "changes", "code"),
    [
        pytest.param("ADD", {"cniVersion": "9.9.9"}, 1, id="an unknown version"),
        pytest.param("PLAY", {}, 4, id="an unknown command"),
        pytest.param("ADD", {"ip-addresses": ["10.0.0"]}, 7, id="a wrong address"),
        pytest.param("ADD", {"name": None}, 7, id="no name"),
    ],
)
async def test_what_is_wrong_is_answered_with_the_code_of_the_specification(
    plugin: Plugin, command: str, changes: dict[str, Any], code: int
) -> None:
    exit_code, error = await plugin.run(command, **changes)

    assert (exit_code, error["code"]) == (1, code)


async def test_version_lists_what_is_supported(plugin: Plugin) -> None:
    code, answer = await plugin.run("VERSION")

    assert (code, answer["supportedVersions"]) == (0, ["0.4.0", "1.0.0"])
