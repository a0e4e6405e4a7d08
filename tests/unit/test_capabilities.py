"""What an agent says that its machine can do."""

import platform
from pathlib import Path

import pytest

from fargate_agent.acs.capabilities import read_attributes
from fargate_agent.composition import make_enis
from fargate_agent.findings import Findings
from fargate_agent.logdriver.catalog import make_log_drivers
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.settings import AgentSettings
from fargate_agent.wire.attributes import Attribute

LOGS = make_log_drivers(AgentSettings(), None)

ECS_NAMES = {"x86_64": "x86_64", "aarch64": "arm64"}
"""Of architectures, by the name that the kernel has for them."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine that can do nothing."""
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def names(root: Path, *log_drivers: str) -> set[str]:
    firewall = HostFirewall("test", root / "groups", FirewallSettings())
    enis = make_enis(PreparedEnis("test", "eth1"), firewall, root, root, Findings()).values()
    logs = {name: LOGS[name] for name in log_drivers}
    return {attribute.name for attribute in read_attributes(enis, logs, root=root)}


def test_this_machine_has_its_own_architecture_and_tasks_have_an_eni() -> None:
    found = read_attributes((), {"json-file": LOGS["json-file"]})

    assert Attribute("ecs.cpu-architecture", ECS_NAMES[platform.machine()]) in found
    assert Attribute("ecs.capability.task-eni") in found
    assert Attribute("com.amazonaws.ecs.capability.logging-driver.json-file") in found


def test_journald_is_there_only_with_its_socket(root: Path) -> None:
    journald = "com.amazonaws.ecs.capability.logging-driver.journald"
    before = names(root, "journald")
    write(root / "run/systemd/journal/socket", "")

    assert journald not in before
    assert journald in names(root, "journald")


@pytest.mark.parametrize(
    "init", ["fargate.capability.container-init", "ecs.capability.pid-ipc-namespace-sharing"]
)
def test_inits_are_there_if_their_program_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = names(root)
    (tmp_path / "catatonit").touch(mode=0o755)

    assert init not in before
    assert init in names(root)


@pytest.mark.parametrize("prio", ["sys/module/sch_prio/version", ""])
def test_every_fault_can_be_injected_if_the_kernel_has_both_queues(root: Path, prio: str) -> None:
    modules = root / "lib/modules" / platform.release()
    write(modules / "modules.dep", "kernel/net/sched/sch_netem.ko.xz:")
    before = names(root)
    if prio:
        write(root / prio, "1")
    else:
        write(modules / "modules.builtin", "kernel/net/sched/sch_prio.ko")

    assert "ecs.capability.fault-injection" not in before
    assert "ecs.capability.fault-injection" in names(root)


def test_firelens_goes_with_both_routers(root: Path) -> None:
    assert {
        "ecs.capability.firelens.fluentbit",
        "ecs.capability.firelens.fluentd",
    } <= names(root, "awsfirelens")


def test_nics_are_named_but_no_loopback_and_none_of_an_agent(root: Path) -> None:
    for name, kind in (("eth0", "1"), ("lo", "772"), ("fg12abvabcdefgh", "1"), ("tun0", "65534")):
        write(root / "sys/class/net" / name / "type", kind)
        write(root / "sys/class/net" / name / "address", "52:54:00:00:00:01")

    prefix = "fargate.capability.task-eni."
    assert {name.removeprefix(prefix) for name in names(root) if name.startswith(prefix)} == {
        "macvlan.eth0",
        "nic.52-54-00-00-00-01",
        "vlan.eth0",
        "vlan.52-54-00-00-00-01",
    }


def test_cni_networks_are_named_whose_plugins_are_there(root: Path) -> None:
    for name, plugin in (("lan", "bridge"), ("other", "absent")):
        network = f'{{"cniVersion": "1.0.0", "name": "{name}", "type": "{plugin}"}}'
        write(root / f"etc/cni/net.d/{name}.conf", network)
    write(root / "usr/lib/cni/bridge", "")
    (root / "usr/lib/cni/bridge").chmod(0o755)

    prefix = "fargate.capability.task-eni.cni."
    assert {name for name in names(root) if name.startswith(prefix)} == {f"{prefix}lan"}


def test_emulation_counts_only_while_it_is_enabled(root: Path) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    handler = root / "proc/sys/fs/binfmt_misc" / f"qemu-{other}"
    emulated = f"fargate.capability.cpu-emulation.{ECS_NAMES[other]}"
    write(handler, "disabled\ninterpreter /usr/bin/qemu")
    before = names(root)
    write(handler, "enabled\ninterpreter /usr/bin/qemu")

    assert emulated not in before
    assert emulated in names(root)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        pytest.param("proc/cgroups", "#name\tn\tm\ton\ncpu\t1\t1\t1\nmemory\t2\t1\t1", id="v1"),
        pytest.param("sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory pids", id="v2"),
    ],
)
def test_limits_need_both_controllers(root: Path, file: str, text: str) -> None:
    write(root / file, text.replace("memory", "misc"))
    before = names(root)
    write(root / file, text)

    assert "ecs.capability.task-cpu-mem-limit" not in before
    assert "ecs.capability.task-cpu-mem-limit" in names(root)


def test_ipv6_is_there_if_the_kernel_has_it(root: Path) -> None:
    before = names(root)
    write(root / "proc/net/if_inet6", "")

    assert "fargate.capability.task-eni.ipv6" not in before
    assert "fargate.capability.task-eni.ipv6" in names(root)


def test_attribute_without_a_value_is_sent_without_one() -> None:
    assert Attribute("a").render() == {"name": "a"}
    assert Attribute("a", "b").render() == {"name": "a", "value": "b"}
