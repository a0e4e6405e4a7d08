"""What every plugin of cni/ does the same: environment, configuration, versions, errors."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.network.namespaces import make_netns, mount_netns, unmount_netns
from tests.fixtures.cni_programs import DEADLINE_S, NETNS_DIR, PROGRAMS, Answer, run_program

pytestmark = pytest.mark.root

PLUGINS = sorted(one.name for one in PROGRAMS.iterdir() if one.is_symlink())
NEVER_LOADED = {"asyncio", "dataclasses", "inspect", "logging", "pathlib", "pyroute2", "subprocess"}
"""Each takes milliseconds of every call."""


@pytest.fixture(scope="module", autouse=True)
def container() -> Iterator[None]:
    """The namespace of the container."""
    path = NETNS_DIR / "test-program"
    with make_netns() as namespace:
        mount_netns(namespace, path)
    yield
    unmount_netns(path)


def call(verb: str, config: Any, plugin: str = "ecs-bridge", **changes: str) -> Answer:
    """Run a plugin about a container whose namespace is told by its name."""
    environment = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "one",
        "CNI_NETNS": "test-program",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(PROGRAMS),
        **changes,
    }
    stdin = config if isinstance(config, str) else json.dumps(config)
    return run_program(plugin, {name: value for name, value in environment.items() if value}, stdin)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_each_tells_its_versions(plugin: str) -> None:
    versions = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]

    assert call("VERSION", {"cniVersion": "0.4.0"}, plugin).result == {
        "cniVersion": "0.4.0",
        "supportedVersions": versions,
    }
    assert call("VERSION", "", plugin, CNI_NETNS="dummy").result["supportedVersions"] == versions


@pytest.mark.parametrize("plugin", PLUGINS)
def test_each_answers_the_flags_that_the_ecs_agent_gives(plugin: str) -> None:
    assert set(run_program(plugin, {}, "", "--version").result) == {
        "version",
        "dirty",
        "gitShortHash",
    }
    assert "capabilities" in run_program(plugin, {}, "", "--capabilities").result
    assert run_program(plugin, {}, "", "--what").status == 2


@pytest.mark.parametrize("plugin", PLUGINS)
def test_without_a_command_it_says_what_it_is(plugin: str) -> None:
    assert run_program(plugin, {}) == Answer(0, None)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"CNI_COMMAND": "EAT"}, (4, "unknown CNI_COMMAND: EAT")),
        ({"CNI_NETNS": ""}, (4, "required env variables [CNI_NETNS] missing")),
        (
            {"CNI_CONTAINERID": "", "CNI_IFNAME": ""},
            (4, "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing"),
        ),
        ({"CNI_CONTAINERID": "../x"}, (4, "invalid characters in containerID: ../x")),
        ({"CNI_IFNAME": "sixteen-letters-"}, (4, "interface name is too long")),
        ({"CNI_IFNAME": ".."}, (4, "interface name is . or ..")),
        (
            {"CNI_IFNAME": "a/b"},
            (4, "interface name contains / or : or whitespace characters"),
        ),
        ({"CNI_NETNS": "/run/netns/gone"}, (3, "no network namespace at /run/netns/gone")),
        ({"CNI_NETNS": "gone"}, (3, "no network namespace at /run/netns/gone")),
        ({"CNI_NETNS": "/etc/passwd"}, (8, "/etc/passwd is no network namespace")),
        (
            {"CNI_NETNS": "/proc/self/ns/net"},
            (8, "plugin's netns and netns from CNI_NETNS should not be the same"),
        ),
        ({"CNI_ARGS": "a;b=c"}, (4, "CNI_ARGS: invalid pair 'a'")),
        ({"CNI_PATH": ""}, (4, "required env variables [CNI_PATH] missing")),
    ],
)
def test_what_is_wrong_in_the_environment_is_told(
    changes: dict[str, str], fault: tuple[int, str]
) -> None:
    config = {"cniVersion": "0.4.0", "bridge": "x", "ipam": {"type": "ecs-ipam"}}
    verb = changes.pop("CNI_COMMAND", "ADD")

    assert call(verb, config, **changes).fault == fault


@pytest.mark.parametrize(
    ("verb", "config", "fault"),
    [
        ("ADD", "[]", (6, "error unmarshall stdin: this is no JSON object")),
        (
            "ADD",
            {"cniVersion": "1.0.0", "name": "a b"},
            (7, "invalid characters found in network name: a b"),
        ),
        ("CHECK", {"cniVersion": "0.3.1"}, (1, "config version does not allow CHECK")),
        ("GC", {"cniVersion": "1.0.0"}, (1, "config version does not allow GC")),
        ("STATUS", {"cniVersion": "1.0.0"}, (1, "config version does not allow STATUS")),
        ("ADD", {"cniVersion": "1.0.0", "bridge": 5}, (6, "bridge has to be a string")),
        (
            "ADD",
            {"cniVersion": "1.0.0", "bridge": "b", "ipam": []},
            (6, "ipam has to be an object"),
        ),
        (
            "ADD",
            {"cniVersion": "1.0.0", "BRIDGE": "b", "ipam": {"connectedSubnetMaskSizeIPv4": 3}},
            (2, "unsupported field: ipam.connectedSubnetMaskSizeIPv4: 3"),
        ),
        (
            "ADD",
            {"cniVersion": "1.0.0"},
            (7, "bridge parsing config: missing required parameter in config named: 'bridge'"),
        ),
    ],
)
def test_what_is_wrong_in_the_configuration_is_told(
    verb: str, config: Any, fault: tuple[int, str]
) -> None:
    assert call(verb, config).fault == fault


@pytest.mark.parametrize("version", ["0.2.0", "2.0.0", None])
def test_versions_of_others_are_refused(version: str | None) -> None:
    code, message = call("ADD", {"cniVersion": version}).fault

    assert code == 1
    assert message.startswith("incompatible CNI versions: config is ")


def test_what_is_no_json_is_told() -> None:
    code, message = call("ADD", "{").fault

    assert code == 6
    assert message.startswith("error unmarshall stdin: ")


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_call_loads_little(plugin: str) -> None:
    done = subprocess.run(
        ["/usr/bin/python3", "-ISX", "importtime", PROGRAMS / plugin],
        env={"CNI_COMMAND": "VERSION"},
        input="",
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert loaded & NEVER_LOADED == set()
    assert "fargate_agent.cniplugins.program" in loaded


def test_what_a_call_did_stands_in_the_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "log"
    told = {"ECS_CNI_LOG_FILE": str(file), "CNI_NETNS": ""}
    config = {"cniVersion": "1.1.0", "bridge": "nobridge"}

    assert call("DEL", config, **told).status == 0
    assert call("ADD", config, **told).status == 1
    assert call("DEL", config, ECS_CNI_LOGLEVEL="error", **told).status == 0

    first, second = (line.partition(" ")[2] for line in file.read_text().splitlines())
    assert first == "[INFO] ecs-bridge: DEL one eth0: done"
    assert second.startswith("[ERROR] ecs-bridge: ADD: required env variables [CNI_NETNS]")


def test_a_log_that_cannot_be_written_does_not_disturb_the_answer() -> None:
    config = {"cniVersion": "1.1.0", "bridge": "nobridge"}

    assert call("DEL", config, ECS_CNI_LOG_FILE="/nowhere/log").status == 0


def test_it_is_called_by_the_name_of_a_plugin_only() -> None:
    done = subprocess.run(
        [PROGRAMS / "plugin"], capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )

    assert done.returncode == 1
    assert "call this by the name of a plugin" in done.stderr


def test_it_needs_no_environment_but_that_of_cni() -> None:
    assert set(os.environ) - {"PATH"}
    assert call("VERSION", {}).status == 0
