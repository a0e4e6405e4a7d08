"""aws-appmesh as a runtime runs it: which listener connections really reach."""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.cni_programs import IFNAME, Containers, Runtime
from tests.fixtures.injection import show
from tests.fixtures.proxied import PEER, POD, Pod, reached

pytestmark = pytest.mark.root

INGRESS, EGRESS, APP, IGNORED = 8080, 8000, 1223, 80
PROXY = 1337
PREVIOUS = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": IFNAME, "sandbox": "/run/netns/x"}],
    "ips": [{"interface": 0, "address": "10.1.2.3/16"}],
    "dns": {},
}


@pytest.fixture
def mesh(tmp_path: Path) -> Runtime:
    return Runtime(
        tmp_path,
        {
            "cniVersion": "1.1.0",
            "name": "mesh",
            "type": "aws-appmesh",
            "ignoredUID": str(PROXY),
            "ignoredGID": str(PROXY + 1),
            "proxyIngressPort": str(INGRESS),
            "proxyEgressPort": str(EGRESS),
            "appPorts": [str(APP), *map(str, range(2000, 2100, 2))],
            "egressIgnoredPorts": [str(IGNORED)],
            "egressIgnoredIPs": [],
            "enableIPV6": True,
            "prevResult": PREVIOUS,
        },
    )


def show_rules(netns: Path) -> str:
    return show(netns, "nft", "list", "ruleset")


@pytest.mark.parametrize("version", [4, 6])
def test_what_comes_in_and_goes_out_reaches_the_proxy(
    version: int, mesh: Runtime, pod: Pod
) -> None:
    assert mesh.add(pod.netns) == PREVIOUS
    ingress, egress = pod.listen(INGRESS, version), pod.listen(EGRESS, version)
    app = pod.listen(APP, version)
    other = pod.listen(APP + 1, version)

    for port in (APP, 2098):  # more than 15 ports lie between
        assert reached(ingress, pod.connect(POD[version], port, pod.peer))
    assert reached(egress, pod.connect(PEER[version], 5555))
    assert reached(other, pod.connect(POD[version], APP + 1, pod.peer))
    assert reached(app, pod.connect(POD[version], APP))  # from the container itself


@pytest.mark.parametrize("version", [4, 6])
def test_what_the_proxy_sends_and_what_is_ignored_passes(
    version: int, mesh: Runtime, pod: Pod
) -> None:
    mesh.add(pod.netns)
    egress = pod.listen(EGRESS, version)
    there, web = pod.listen(5555, version, pod.peer), pod.listen(IGNORED, version, pod.peer)
    peer = PEER[version]

    assert reached(there, pod.connect(peer, 5555, uid=PROXY))
    assert reached(there, pod.connect(peer, 5555, gid=PROXY + 1))
    assert reached(egress, pod.connect(peer, 5555, uid=PROXY + 1))
    assert reached(web, pod.connect(peer, IGNORED))


def test_ignored_addresses_pass(mesh: Runtime, pod: Pod) -> None:
    mesh.add(pod.netns, egressIgnoredIPs=["10.213.7.9/24", "2001:db8:7::1"])
    for version in (4, 6):
        there = pod.listen(5555, version, pod.peer)
        assert reached(there, pod.connect(PEER[version], 5555))


def test_without_ipv6_and_without_ingress_there_is_less(mesh: Runtime, pod: Pod) -> None:
    mesh.add(pod.netns, enableIPV6=None, appPorts=[""])
    there, app = pod.listen(5555, 6, pod.peer), pod.listen(APP, 4)

    assert reached(there, pod.connect(PEER[6], 5555))
    assert reached(app, pod.connect(POD[4], APP, pod.peer))
    assert "PREROUTING" not in show_rules(pod.netns)


def test_deleting_leaves_nothing_and_may_be_repeated(mesh: Runtime, containers: Containers) -> None:
    netns = containers.make()
    mesh.add(netns)
    assert "chain APPMESH_EGRESS" in show_rules(netns)

    for where in (netns, netns, "", "/run/netns/gone"):
        assert mesh.run("DEL", where).status == 0
        assert show_rules(netns) == ""


def test_another_attachment_neither_changes_nor_removes_the_rules(
    mesh: Runtime, container: Path
) -> None:
    mesh.add(container)
    rules = show_rules(container)

    _, message = mesh.run("ADD", container, ifname="eth1").fault

    mark = "fargate-cni:aws-appmesh:mesh:one:eth0"
    assert message == f"the container has rules of aws-appmesh already: {mark}"
    assert mesh.run("DEL", container, ifname="eth1").status == 0
    assert show_rules(container) == rules


def test_check_tells_what_is_missing(mesh: Runtime, container: Path) -> None:
    mesh.add(container)
    assert mesh.run("CHECK", container).status == 0
    assert mesh.run("CHECK", container, proxyEgressPort="8001").fault == (
        100,
        "chain APPMESH_EGRESS of aws-appmesh has other rules in the container",
    )
    show(container, "nft", "flush", "chain", "inet", "aws-appmesh", "OUTPUT")
    assert mesh.run("CHECK", container).fault == (
        100,
        "chain OUTPUT of aws-appmesh has other rules in the container",
    )
    show(container, "nft", "flush", "ruleset")
    told = mesh.run("CHECK", container).fault
    assert told == (100, "the container has no rules of aws-appmesh")


def test_garbage_is_removed_but_what_is_valid(mesh: Runtime, containers: Containers) -> None:
    kept, gone = containers.make(), containers.make()
    mesh.add(kept, "kept")
    mesh.add(gone, "gone")
    valid: dict[str, Any] = {
        "cni.dev/valid-attachments": [{"containerID": "kept", "ifname": IFNAME}]
    }

    assert mesh.run("GC", **valid).status == 0

    assert show_rules(gone) == ""
    assert "aws-appmesh" in show_rules(kept)


def test_status_and_versions(mesh: Runtime, container: Path) -> None:
    assert mesh.run("STATUS").status == 0
    result = mesh.add(container, cniVersion="0.3.0", name=None)
    assert result["ips"] == [{"version": "4", "interface": 0, "address": "10.1.2.3/16"}]
    assert mesh.run("DEL", container, cniVersion="0.3.0", name=None).status == 0
    assert mesh.add(container, prevResult=None) == {"cniVersion": "1.1.0", "ips": [], "dns": {}}
