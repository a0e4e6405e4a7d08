"""Networks of CNI: which file is read, and what a list must have."""

import json
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.network.cni.conflist import ConflistError, find_conflist, parse_conflist

BRIDGE: dict[str, Any] = {"type": "bridge", "capabilities": {"ips": True, "mac": False}, "mtu": 9}


def test_a_list_is_read_whole() -> None:
    network = parse_conflist(
        {"cniVersion": "1.0.0", "name": "lan", "disableCheck": "true", "plugins": [BRIDGE]}
    )
    assert (network.name, network.version, network.is_check_disabled) == ("lan", "1.0.0", True)
    assert network.plugins[0].capabilities == {"ips"}
    assert network.plugins[0].fields == {"type": "bridge", "mtu": 9}
    assert network.supports("0.4.0")
    assert not network.supports("1.1.0")


def test_the_newest_version_that_both_speak_is_chosen() -> None:
    versions = ["0.4.0", "1.1.0", "9.0.0"]
    document = {"cniVersion": "1.0.0", "cniVersions": versions, "name": "a", "plugins": [BRIDGE]}
    assert parse_conflist(document).version == "1.1.0"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../a"},
        {"cniVersion": "0.2.0"},
        {"cniVersions": "1.0.0"},
        {"plugins": []},
        {"plugins": [{"type": "../../bin/sh"}]},
        {"plugins": [{"type": "a", "capabilities": []}]},
        {"plugins": ["bridge"]},
        {"disableGC": "maybe"},
    ],
)
def test_a_list_that_cannot_be_used_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConflistError):
        parse_conflist({"cniVersion": "1.0.0", "name": "a", "plugins": [BRIDGE]} | change)


def test_a_network_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "00.conf").write_text("garbage")
    (tmp_path / "10.conf").write_text(json.dumps({"cniVersion": "0.3.1", "name": "one", **BRIDGE}))
    assert find_conflist(tmp_path, "one").plugins[0].type == "bridge"
    with pytest.raises(ConflistError, match="no network 'two'"):
        find_conflist(tmp_path, "two")
