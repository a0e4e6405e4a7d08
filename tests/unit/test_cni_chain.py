"""The order in which the plugins of a network run, and what each is given."""

import json
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.network.cni.chain import Attachment, Chain
from fargate_agent.network.cni.conflist import parse_conflist
from fargate_agent.network.cni.plugin import PluginError

RECORD = """#!/bin/sh
config=$(cat)
echo "{\\"verb\\": \\"$CNI_COMMAND\\", \\"config\\": $config}" >>$(dirname $0)/../record
"""


def _make(directory: Path, version: str, **scripts: str) -> Chain:
    programs = directory / "bin"
    programs.mkdir()
    for name, script in scripts.items():
        (programs / name).write_text(RECORD + script + "\n")
        (programs / name).chmod(0o755)
    plugins = [{"type": name, "capabilities": {"mac": name == "one"}} for name in ("one", "two")]
    network = parse_conflist({"cniVersion": version, "name": "lan", "plugins": plugins})
    return Chain(network=network, directories=[programs], runtime={"mac": "02::", "ips": []})


def _read(directory: Path) -> list[tuple[str, str, Any, Any]]:
    runs = [json.loads(line) for line in (directory / "record").read_text().splitlines()]
    return [
        (
            run["verb"],
            run["config"]["type"],
            run["config"].get("prevResult"),
            run["config"].get("runtimeConfig"),
        )
        for run in runs
    ]


ATTACHMENT = Attachment(container_id="task", ifname="eth1", netns=Path("/run/netns/none"))
MAC = {"mac": "02::"}


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
async def test_plugins_run_in_order_and_are_undone_in_reverse(tmp_path: Path, version: str) -> None:
    chain = _make(tmp_path, version, one="echo '{\"a\": 1}'", two="echo '{\"a\": 2}'")
    result = await chain.add(ATTACHMENT)
    await chain.check(ATTACHMENT, result)
    await chain.delete(ATTACHMENT, result)
    last = {"a": 2}
    is_told = version not in ("0.3.0", "0.3.1")
    checks = [("CHECK", "one", last, MAC), ("CHECK", "two", last, None)] if is_told else []
    assert _read(tmp_path) == [
        ("ADD", "one", None, MAC),
        ("ADD", "two", {"a": 1}, None),
        *checks,
        ("DEL", "two", last if is_told else None, None),
        ("DEL", "one", last if is_told else None, MAC),
    ]


async def test_what_a_failed_add_made_is_undone(tmp_path: Path) -> None:
    chain = _make(tmp_path, "1.0.0", one="echo '{\"a\": 1}'", two="exit 1")
    with pytest.raises(PluginError, match="CNI plugin two, ADD"):
        await chain.add(ATTACHMENT)
    assert [run[:2] for run in _read(tmp_path)] == [
        ("ADD", "one"),
        ("ADD", "two"),
        ("DEL", "two"),
        ("DEL", "one"),
    ]


async def test_a_plugin_that_is_not_installed_is_named(tmp_path: Path) -> None:
    chain = _make(tmp_path, "1.0.0", one="echo '{}'")
    with pytest.raises(PluginError, match="CNI plugin two, ADD: not installed in"):
        await chain.add(ATTACHMENT)


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
async def test_status_and_garbage_collection_are_asked_of_those_that_know_them(
    tmp_path: Path, version: str
) -> None:
    chain = _make(tmp_path, version, one="exit 0", two="exit 0")
    (tmp_path / "record").touch()

    await chain.status()
    await chain.collect([("task", "eth1")])

    runs = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    verbs = [(run["verb"], run["config"]["type"]) for run in runs]
    asked = [("STATUS", "one"), ("STATUS", "two"), ("GC", "one"), ("GC", "two")]
    assert verbs == (asked if version == "1.1.0" else [])
    kept = [{"containerID": "task", "ifname": "eth1"}]
    assert [run["config"]["cni.dev/valid-attachments"] for run in runs[2:]] == [kept] * len(
        runs[2:]
    )


async def test_a_plugin_that_can_make_nothing_says_so(tmp_path: Path) -> None:
    chain = _make(tmp_path, "1.1.0", one='echo \'{"code": 50, "msg": "no uplink"}\'; exit 1')

    with pytest.raises(PluginError, match="CNI plugin one, STATUS: no uplink .code 50"):
        await chain.status()
