"""Layers that processes of the agent unpack: the same files as containerd makes, and no others."""

import logging
from typing import Any

import pytest

from fargate_agent.containerd.client import Containerd
from tests.fixtures.layers import Peer, make_odd_layers

pytestmark = pytest.mark.root

LEFT = "is unpacked by containerd"


@pytest.fixture
async def peer(containerd: Containerd) -> Peer:
    await containerd.leases.ensure("test", {})
    return Peer(containerd=containerd.with_lease("test"))


@pytest.mark.timeout(240)  # 66 layers in two ways, on a machine that may be busy
async def test_odd_layers_become_the_files_that_containerd_makes(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wrong: dict[str, Any] = {}
    for name, odd in make_odd_layers().items():
        caplog.clear()
        layers = (*odd.below, odd.layer)
        ours = await peer.unpack(layers, odd.packing)
        left = [one.getMessage() for one in caplog.records if LEFT in one.getMessage()]
        theirs = await peer.apply(layers, odd.packing)
        if isinstance(ours, str) or isinstance(theirs, str):
            if not (odd.fails and ours == theirs):
                wrong[name] = (ours, theirs)
        elif ours != theirs or odd.fails:
            wrong[name] = (
                [one for one in ours if one not in theirs],
                [one for one in theirs if one not in ours],
            )
        elif bool(left) != odd.by_containerd:
            wrong[name] = left or "the agent"
    assert wrong == {}
