"""What every plugin of CNI promises, in each version, as its executable is called by a runtime.

Source: containernetworking/cni, SPEC.md 1.1.0. The same is asked of Debian's `bridge` and
`host-local`, so that the questions are known to be right.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.cni_scene import Answer, Container, Scene
from tests.fixtures.cni_schema import check_error, check_result
from tests.fixtures.cni_subject import OURS, Subject
from tests.fixtures.cni_subjects_ecs import EcsBridge, EcsEni, EcsIpam
from tests.fixtures.cni_subjects_stock import (
    StockBridge,
    StockHostLocal,
    StockTuning,
)
from tests.fixtures.cni_subjects_vpc import AppMesh, ServiceConnect, VpcBranchEni, VpcEni
from tests.fixtures.programs import require_program

pytestmark = pytest.mark.root

SUBJECTS: tuple[type[Subject], ...] = (
    StockHostLocal,
    StockBridge,
    StockTuning,
    EcsIpam,
    EcsBridge,
    EcsEni,
    VpcEni,
    VpcBranchEni,
    AppMesh,
    ServiceConnect,
)
INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT, DECODE_FAILURE, INVALID_CONFIG = 1, 4, 6, 7
NOT_AVAILABLE = 50
VALID = "cni.dev/valid-attachments"
LIVES = [
    pytest.param(subject, version, id=f"{subject.name}-{version}")
    for subject in SUBJECTS
    for version in subject.versions
]
NEWEST = [pytest.param(subject, id=subject.name) for subject in SUBJECTS]
OF_1_1 = [
    pytest.param(subject, id=subject.name) for subject in SUBJECTS if "1.1.0" in subject.versions
]
OF_ECS = [
    pytest.param(subject, id=subject.name) for subject in SUBJECTS if subject.name[:4] == "ecs-"
]
WITH_IPAM = [
    pytest.param(subject, id=subject.name)
    for subject in SUBJECTS
    if subject.has_ipam and subject.rolls_back
]
MAKERS = [
    pytest.param(subject, id=subject.name)
    for subject in SUBJECTS
    if not (subject.is_ipam or subject.is_chained)
]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene.make(tmp_path)
    yield scene
    scene.remove()


def begin(kind: type[Subject], scene: Scene) -> Subject:
    subject = kind(scene)
    require_program(str(subject.program))
    return subject


def begin_container(subject: Subject) -> Container:
    container = subject.scene.add_container()
    subject.prepare(container)
    return container


def skip_without_kernel(subject: Subject) -> None:
    if (reason := subject.why_not()) is not None:
        pytest.skip(reason)


def add(subject: Subject, container: Container, version: str) -> dict[str, Any]:
    skip_without_kernel(subject)
    config = subject.config(container, version, **subject.previous(container, version))
    answer = subject.call("ADD", container, config)
    answer.succeeded()
    return answer.document


def refuse(subject: Subject, answer: Answer, code: int | None, version: str | None) -> str:
    """Return what the plugin says of its refusal."""
    assert answer.status != 0
    check_error(answer.document, version, names_version=subject.names_version)
    if code is not None:
        assert answer.document["code"] == code, answer.stdout
    message: str = answer.document["msg"]
    return message


def assert_is_there(subject: Subject, container: Container, result: dict[str, Any]) -> None:
    """Fail unless the kernel has what a result says."""
    links: dict[str, dict[str, dict[str, Any]]] = {}
    for where, netns in (("", subject.scene.machine), (str(container.netns), container.netns)):
        found = subject.scene.read_ip("address", netns=netns)
        links[where] = {link["ifname"]: link for link in found}
    interfaces = result.get("interfaces", [])
    for interface in interfaces:
        link = links[interface.get("sandbox", "")][interface["name"]]
        assert link["address"] == interface.get("mac", link["address"])
        assert link["mtu"] == interface.get("mtu", link["mtu"])
    for ip in result.get("ips", []):
        interface = interfaces[ip["interface"]]
        link = links[interface["sandbox"]][interface["name"]]
        assert "UP" in link["flags"]
        assert ip["address"] in [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]]
    routes = [
        route
        for family in ("-4", "-6")
        for route in subject.scene.read_ip(family, "route", netns=container.netns)
    ]
    for route in result.get("routes", []):
        wanted = "default" if route["dst"] in {"0.0.0.0/0", "::/0"} else route["dst"]
        wanted = wanted.removesuffix("/32").removesuffix("/128")
        assert wanted in [one["dst"] for one in routes]


@pytest.mark.parametrize(("kind", "version"), LIVES)
def test_an_attachment_lives_and_ends(kind: type[Subject], version: str, scene: Scene) -> None:
    subject = begin(kind, scene)
    container = begin_container(subject)
    before = subject.observe(container)

    result = add(subject, container, version)
    check_result(result, version, is_ipam=subject.is_ipam)
    if not subject.is_ipam:
        assert_is_there(subject, container, result)
        assert container.ifname in [one["name"] for one in result["interfaces"]]
    during = subject.observe(container)
    assert during != before
    config = subject.config(container, version, prevResult=result)
    check = subject.call("CHECK", container, config)
    if version < "0.4.0":
        refuse(subject, check, INCOMPATIBLE_VERSION, version)
    else:
        check.was_silent()
    assert subject.observe(container) == during

    subject.call("DEL", container, config).was_silent()
    assert subject.observe(container) == before
    subject.call("DEL", container, subject.config(container, version)).was_silent()
    assert subject.observe(container) == before


@pytest.mark.parametrize("kind", NEWEST)
def test_it_says_which_versions_it_speaks(kind: type[Subject], scene: Scene) -> None:
    subject = begin(kind, scene)
    # As podman asks.
    dummies = {"CNI_CONTAINERID": "", "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy"}
    answer = subject.call("VERSION", None, b'{"cniVersion": "1.0.0"}', **dummies)
    answer.succeeded()
    assert set(answer.document) == {"cniVersion", "supportedVersions"}
    assert answer.document["cniVersion"] in answer.document["supportedVersions"]
    assert set(subject.versions) <= set(answer.document["supportedVersions"])


@pytest.mark.parametrize("kind", NEWEST)
def test_it_refuses_a_wrong_environment(kind: type[Subject], scene: Scene) -> None:
    subject = begin(kind, scene)
    container = begin_container(subject)
    before = subject.observe(container)
    version = subject.newest
    config = subject.config(container, version, prevResult={"cniVersion": version})
    missing: dict[str, list[str]] = {
        "ADD": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        "DEL": ["CNI_CONTAINERID", "CNI_IFNAME"],
        "CHECK": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
    }
    for verb, names in missing.items():
        message = refuse(subject, subject.call(verb, None, config), INVALID_ENVIRONMENT, None)
        assert [name for name in names if name not in message] == []
    wrong = [
        {"CNI_CONTAINERID": "../x"},
        {"CNI_IFNAME": "a/b"},
        {"CNI_IFNAME": "a" * 16},
        {"CNI_COMMAND": "EXPLODE"},
    ]
    for changes in wrong:
        refuse(
            subject, subject.call("ADD", container, config, **changes), INVALID_ENVIRONMENT, None
        )
    assert subject.observe(container) == before


@pytest.mark.parametrize("kind", NEWEST)
def test_it_refuses_a_wrong_configuration(kind: type[Subject], scene: Scene) -> None:
    subject = begin(kind, scene)
    container = begin_container(subject)
    before = subject.observe(container)
    version = subject.newest
    wrong: dict[int, list[dict[str, Any] | bytes]] = {
        DECODE_FAILURE: [b"{", b"[]"],
        INCOMPATIBLE_VERSION: [subject.config(container, "9.9.9")],
        INVALID_CONFIG: [subject.config(container, version, name="../x")],
    }
    for code, configs in wrong.items():
        for config in configs:
            refuse(subject, subject.call("ADD", container, config), code, None)
    assert subject.observe(container) == before


@pytest.mark.parametrize("kind", NEWEST)
def test_a_check_finds_what_others_have_changed(kind: type[Subject], scene: Scene) -> None:
    subject = begin(kind, scene)
    version = subject.newest
    for tamper in subject.tampers():
        container = begin_container(subject)
        before = subject.observe(container)
        result = add(subject, container, version)
        config = subject.config(container, version, prevResult=result)
        tamper(container)
        refuse(subject, subject.call("CHECK", container, config), None, version)
        subject.call("DEL", container, config).was_silent()
        assert subject.observe(container) == before


@pytest.mark.parametrize("kind", MAKERS)
def test_a_check_needs_to_be_told_what_was_made(kind: type[Subject], scene: Scene) -> None:
    subject = begin(kind, scene)
    container = begin_container(subject)
    result = add(subject, container, subject.newest)
    config = subject.config(container, subject.newest)
    refuse(subject, subject.call("CHECK", container, config), None, subject.newest)
    for ip in result["ips"]:
        ip["address"] = "192.0.2.1/24"
    refuse(
        subject,
        subject.call("CHECK", container, config | {"prevResult": result}),
        None,
        subject.newest,
    )
    subject.call("DEL", container, config).was_silent()


@pytest.mark.parametrize("kind", OF_ECS)
def test_a_network_needs_no_name(kind: type[Subject], scene: Scene) -> None:
    """Those of amazon-ecs-cni-plugins have none: its README.md, its tests."""
    subject = begin(kind, scene)
    container = begin_container(subject)
    before = subject.observe(container)
    config = subject.config(container, "0.3.0")
    del config["name"]
    answer = subject.call("ADD", container, config)
    answer.succeeded()
    check_result(answer.document, "0.3.0", is_ipam=subject.is_ipam)
    subject.call("DEL", container, config).was_silent()
    assert subject.observe(container) == before


@pytest.mark.parametrize("kind", NEWEST)
@pytest.mark.parametrize("given", ["its path", "nothing"])
def test_what_a_namespace_leaves_when_it_goes_is_taken_back(
    kind: type[Subject], given: str, scene: Scene
) -> None:
    subject = begin(kind, scene)
    container = begin_container(subject)
    before = {one for one in subject.observe() if subject.outlives(one, container)}
    result = add(subject, container, subject.newest)
    scene.remove_container(container)
    config = subject.config(container, subject.newest, prevResult=result)
    changes = {} if given == "its path" else {"CNI_NETNS": None}
    subject.call("DEL", container, config, **changes).was_silent()
    scene.wait_for_links(lambda: subject.observe() == before)


@pytest.mark.parametrize("kind", MAKERS)
def test_an_add_that_fails_leaves_nothing(kind: type[Subject], scene: Scene) -> None:
    subject = begin(kind, scene)
    container = begin_container(subject)
    version = subject.newest
    config = subject.config(container, version)
    scene.run_ip(
        *("link", "add", container.ifname, "type", "veth", "peer", "name", "other0"),
        netns=container.netns,
    )
    before = subject.observe(container)

    refuse(subject, subject.call("ADD", container, config), None, version)
    assert subject.observe(container) == before
    gone = {"CNI_NETNS": str(scene.directory / "gone")}
    refuse(subject, subject.call("ADD", container, config, **gone), None, version)
    assert subject.observe(container) == before


@pytest.mark.parametrize("kind", WITH_IPAM)
def test_without_addresses_it_attaches_nothing(kind: type[Subject], scene: Scene) -> None:
    subject = begin(kind, scene)
    container = begin_container(subject)
    before = subject.observe(container)
    config = subject.config(container, subject.newest)
    broken = subject.break_ipam()

    refuse(subject, subject.call("ADD", container, config, **broken), None, subject.newest)

    assert subject.observe(container) == before


@pytest.mark.parametrize("kind", OF_1_1)
def test_garbage_is_what_the_runtime_has_no_more(kind: type[Subject], scene: Scene) -> None:
    subject = begin(kind, scene)
    kept, lost = begin_container(subject), begin_container(subject)
    before = subject.observe(kept, lost)
    result = add(subject, kept, "1.1.0")
    with_one = subject.observe(kept, lost)
    add(subject, lost, "1.1.0")

    attachments = [{"containerID": kept.id, "ifname": kept.ifname}]
    with_list = subject.config(kept, "1.1.0", **{VALID: attachments})
    subject.call("GC", None, with_list).was_silent()
    assert subject.observe(kept, lost) == with_one
    check = subject.config(kept, "1.1.0", prevResult=result)
    subject.call("CHECK", kept, check).was_silent()
    other = subject.config(kept, "1.1.0", name="other", **{VALID: []})
    subject.call("GC", None, other).was_silent()
    assert subject.observe(kept, lost) == with_one
    refuse(subject, subject.call("GC", None, subject.config(kept, "1.1.0")), None, "1.1.0")
    assert subject.observe(kept, lost) == with_one

    subject.call("GC", None, subject.config(kept, "1.1.0", **{VALID: []})).was_silent()
    assert subject.observe(kept, lost) == before
    refuse(subject, subject.call("GC", None, subject.config(kept, "1.0.0")), 1, "1.0.0")


@pytest.mark.parametrize("kind", OF_1_1)
def test_it_says_whether_it_could_attach(kind: type[Subject], scene: Scene) -> None:
    subject = begin(kind, scene)
    container = begin_container(subject)
    skip_without_kernel(subject)
    before = subject.observe(container)
    config = subject.config(container, "1.1.0")
    subject.call("STATUS", None, config).was_silent()
    refuse(subject, subject.call("STATUS", None, subject.config(container, "1.0.0")), 1, "1.0.0")
    if subject.has_ipam or subject.is_ipam:
        broken = subject.break_ipam()
        refuse(subject, subject.call("STATUS", None, config, **broken), NOT_AVAILABLE, "1.1.0")
    assert subject.observe(container) == before


def test_every_plugin_is_asked() -> None:
    ours = {kind.name for kind in SUBJECTS if kind.directory == OURS}
    assert ours == {path.name for path in OURS.iterdir() if path.is_symlink()}
