"""What is written down of CNI attachments."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.machine.network import find_plugin_faults
from fargate_agent.network.cni.cache import Attachments, Held, unlock
from fargate_agent.network.cni.conflist import parse_conflist

NETWORK = parse_conflist(
    {
        "cniVersion": "0.4.0",
        "name": "lan",
        "disableGC": True,
        "plugins": [{"type": "bridge", "capabilities": {"ips": True}, "mtu": 1400}],
    }
)
HELD = Held(
    eni_id="eni-1",
    container_id="fargate-task",
    ifname="eth1",
    netns=Path("/run/netns/fargate-task"),
    args="IP=10.0.0.5/24",
    runtime={"ips": ["10.0.0.5/24"]},
    network=NETWORK,
    result=None,
)


@pytest.fixture
def attachments(tmp_path: Path) -> Attachments:
    return Attachments(tmp_path / "attachments")


def test_an_attachment_is_read_as_it_was_written(attachments: Attachments) -> None:
    added = replace(HELD, result={"ips": []})

    attachments.write(HELD)
    assert attachments.read("fargate-task", "eth1") == HELD
    attachments.write(added)
    attachments.write(replace(HELD, ifname="eth2"))

    assert attachments.read("fargate-task", "eth1") == added
    assert [held.ifname for held in attachments] == ["eth1", "eth2"]


def test_an_attachment_that_was_removed_leaves_nothing(
    attachments: Attachments, tmp_path: Path
) -> None:
    attachments.write(HELD)
    lock = attachments.try_lock(HELD)
    assert lock is not None

    attachments.remove(HELD)
    attachments.remove(HELD)
    unlock(lock)

    assert attachments.read("fargate-task", "eth1") is None
    assert list((tmp_path / "attachments").iterdir()) == []


def test_an_attachment_is_locked_by_one_at_a_time(attachments: Attachments) -> None:
    attachments.write(HELD)
    lock = attachments.try_lock(HELD)
    assert lock is not None
    assert attachments.try_lock(HELD) is None

    unlock(lock)

    again = attachments.try_lock(HELD)
    assert again is not None
    unlock(again)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"result": null}'])
def test_a_file_that_makes_no_sense_is_passed_over(
    attachments: Attachments, tmp_path: Path, text: str
) -> None:
    attachments.write(HELD)
    (tmp_path / "attachments/fargate-other.eth1.json").write_text(text)

    assert list(attachments) == [HELD]


def test_a_network_whose_plugin_is_missing_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "lan", "type": "bridge"})
    )

    (finding,) = find_plugin_faults(tmp_path, [tmp_path])

    assert finding.what == f"CNI network lan of {tmp_path} needs bridge, not found in {tmp_path}"
    assert list(find_plugin_faults(tmp_path / "absent", [tmp_path])) == []
