"""Plugins of cni/ that are killed between any two changes they make by netlink."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.fixtures import cni_plugin_kills
from tests.fixtures.cni_programs import (
    DEADLINE_S,
    IFNAME,
    PROGRAMS,
    Containers,
    Nic,
    Runtime,
    list_addresses,
    list_ends,
    read_link,
)
from tests.fixtures.network import read_ip, remove_link

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

MESSAGES = 40
"""More than any of it takes."""


def run_and_kill(runtime: Runtime, verb: str, netns: Path, sent_until: int) -> bool:
    """Whether a plugin was killed at what it does."""
    program = str(PROGRAMS / runtime.config["type"])
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", cni_plugin_kills.__file__, program, str(sent_until)],
        env=runtime.environment(verb, "one", netns, IFNAME),
        input=json.dumps(runtime.config),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert done.returncode in (-signal.SIGKILL, 0), done.stdout + done.stderr
    return done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("is_netns_there", [True, False], ids=["with netns", "without"])
def test_deleting_takes_back_all_that_a_killed_ecs_bridge_left(
    verb: str, is_netns_there: bool, bridge: Runtime, containers: Containers
) -> None:
    killed, times = True, 0
    for sent_until in range(1, MESSAGES):
        netns = containers.make()
        if verb == "DEL":
            bridge.add(netns)
        killed = run_and_kill(bridge, verb, netns, sent_until)
        times += killed
        if not is_netns_there:
            # A pair that isn't marked yet goes with its namespace.
            marked = [one for one in read_ip("link") if one.get("ifalias")]
            if not marked:
                containers.end(netns)
        assert bridge.run("DEL", netns if is_netns_there else "").status == 0
        if is_netns_there:
            assert read_link(IFNAME, netns) is None
            assert list_ends(bridge.config["bridge"]) == []
        assert list_addresses(bridge.store) == []
        remove_link(bridge.config["bridge"])  # else the next time makes it no more
        if not killed:
            break
    assert not killed
    assert times >= (8 if verb == "ADD" else 1)
    assert [one["ifname"] for one in read_ip("link") if one.get("ifalias")] == []


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_deleting_takes_back_the_nic_of_a_killed_ecs_eni(
    verb: str, ecs_eni: Runtime, nic: Nic, container: Path
) -> None:
    killed, times = True, 0
    for sent_until in range(1, MESSAGES):
        if verb == "DEL":
            ecs_eni.add(container)
        killed = run_and_kill(ecs_eni, verb, container, sent_until)
        times += killed
        assert ecs_eni.run("DEL", container).status == 0
        link = read_link(nic.name)
        assert link is not None
        assert (link["ifalias"], link["mtu"]) == ("a friend", 1450)
        if not killed:
            break
    assert not killed
    assert times >= 5
