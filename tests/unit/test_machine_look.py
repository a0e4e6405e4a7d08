"""The machine is looked at: features of the kernel, limits, DNS, loop devices, room on disks."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.findings import Finding
from fargate_agent.machine import storage
from fargate_agent.machine.kernel import (
    NAMESPACES,
    find_cgroup_faults,
    find_kernel_faults,
    find_nfs_faults,
)
from fargate_agent.machine.limits import find_process_faults, find_right_faults
from fargate_agent.machine.look import look
from fargate_agent.machine.network import find_name_faults, find_setting_fault
from fargate_agent.machine.programs import find_mkfs_faults, find_program_faults
from fargate_agent.machine.storage import (
    find_room_faults,
    find_storage_faults,
    find_volume_faults,
)
from fargate_agent.network.sysctl import METADATA_SETTINGS, TASK_SETTINGS
from fargate_agent.runtime.cgroup import Cgroups
from fargate_agent.runtime.host import HostLimits
from fargate_agent.settings import AgentSettings
from fargate_agent.settings_efs import EfsFileSystem
from fargate_agent.volumes.ephemeral import UNBOUNDED
from fargate_agent.volumes.room import Room

PLENTY = {
    "proc/sys/kernel/pid_max": "4194304\n",
    "proc/sys/kernel/threads-max": "100000\n",
    "proc/loadavg": "0.1 0.2 0.3 1/500 12345\n",
    "proc/filesystems": "nodev\tproc\n\text4\nnodev\toverlay\n",
    "proc/swaps": "Filename\tType\n",
    "dev/loop-control": "",
    f"lib/modules/{os.uname().release}/modules.builtin": "kernel/net/bridge/bridge.ko\n",
    f"lib/modules/{os.uname().release}/modules.dep": "kernel/drivers/net/veth.ko.xz:\n"
    "kernel/drivers/net/macvlan.ko: kernel/x.ko\nkernel/net/8021q/8021q.ko:\n"
    "kernel/net/sched/sch_prio.ko:\nkernel/net/sched/sch_netem.ko.xz:\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine on which everything is there."""
    (tmp_path / "proc/sys/kernel/seccomp").mkdir(parents=True)
    files = {**PLENTY, **{f"proc/self/ns/{name}": "" for name in NAMESPACES}}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def make_cgroups(root: Path, without: str = "") -> Cgroups:
    """Trees of cgroup v1, a directory each."""
    names = {"cpu", "memory", "devices", "freezer", "pids"} - {without}
    for name in names:
        (root / name).mkdir(exist_ok=True)
    trees = {name: root / name for name in sorted(names)}
    return Cgroups(trees=tuple(trees.values()), controllers=trees, unified=False)


def whats(findings: object) -> list[str]:
    return [finding.what for finding in findings]  # type: ignore[attr-defined]


def test_machine_that_has_everything_has_no_findings(root: Path) -> None:
    assert list(find_kernel_faults(root, "overlayfs")) == []
    assert list(find_process_faults(root, make_cgroups(root))) == []
    assert list(find_volume_faults(root, required=False)) == []


def test_snapshotter_that_keeps_what_containers_write_is_found(root: Path) -> None:
    (finding,) = find_kernel_faults(root, "native")

    assert finding.what.startswith("the snapshotter is native")
    assert "isn't kept to its ephemeral storage" in finding.effect


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        pytest.param("proc/sys/kernel/seccomp", None, "the kernel has no seccomp", id="seccomp"),
        pytest.param("proc/self/ns/pid", None, "the kernel has no pid namespaces", id="ns"),
        pytest.param(
            "proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces is 0", id="max ns"
        ),
        pytest.param("proc/filesystems", "\text4\n", "the kernel has no overlayfs", id="overlay"),
        pytest.param(
            f"lib/modules/{os.uname().release}/modules.dep",
            "kernel/drivers/net/veth.ko:\nkernel/net/8021q/8021q.ko:\n"
            "kernel/net/sched/sch_prio.ko:\nkernel/net/sched/sch_netem.ko.xz:\n",
            "the kernel has no module macvlan",
            id="macvlan",
        ),
    ],
)
def test_feature_that_the_kernel_lacks_is_found(
    root: Path, name: str, text: str | None, what: str
) -> None:
    if text is None:
        path = root / name
        path.rmdir() if path.is_dir() else path.unlink()
    else:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)

    assert whats(find_kernel_faults(root, "overlayfs")) == [what]


def test_missing_nfs_client_is_found_if_a_setting_names_a_server(root: Path) -> None:
    server, directory = EfsFileSystem(server="nas"), EfsFileSystem(directory=Path("/srv"))
    assert list(find_nfs_faults(root, {"fs-01234567": directory})) == []
    assert whats(find_nfs_faults(root, {"fs-01234567": server})) == ["the kernel has no NFS client"]
    (root / "proc/filesystems").write_text("nodev\tnfs4\nnodev\toverlay\n")
    assert list(find_nfs_faults(root, {"fs-01234567": server})) == []


def test_missing_tlshd_is_found_if_a_setting_wants_tls(root: Path) -> None:
    (root / "proc/filesystems").write_text("nodev\tnfs4\nnodev\toverlay\n")
    server = EfsFileSystem(server="nas", tls=True)
    assert whats(find_nfs_faults(root, {"fs-01234567": server})) == [
        "tlshd of the package ktls-utils is not installed"
    ]
    (root / "usr/sbin").mkdir(parents=True)
    (root / "usr/sbin/tlshd").touch()
    assert list(find_nfs_faults(root, {"fs-01234567": server})) == []


def test_kernel_whose_modules_are_not_listed_is_not_complained_about(root: Path) -> None:
    for file in (root / "lib/modules" / os.uname().release).iterdir():
        file.unlink()

    assert list(find_kernel_faults(root, "overlayfs")) == []


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("proc/sys/kernel/pid_max", "4500", "kernel.pid_max is 4500"),
        ("proc/sys/kernel/threads-max", "4595", "kernel.threads-max is 4595"),
    ],
)
def test_machine_without_room_for_processes_is_found(
    root: Path, name: str, text: str, what: str
) -> None:
    (root / name).write_text(text)

    assert whats(find_process_faults(root, make_cgroups(root))) == [what]


def test_machine_without_an_init_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert whats(find_program_faults(make_cgroups(root), "runc")) == [
        "this host has no program catatonit (Debian: the package catatonit)"
    ]


@pytest.mark.parametrize(
    ("unified", "oci_runtime", "found"),
    [
        pytest.param(False, "runc", [], id="runC"),
        pytest.param(True, "crun", [], id="crun"),
        pytest.param(True, "runc", ["the setting oci_runtime is runc"], id="runC where crun works"),
        pytest.param(
            False,
            "crun",
            ["oci_runtime: crun needs a host without cgroup v1, which this one has beside v2"],
            id="crun where it doesn't work",
        ),
        pytest.param(True, "youki", ["oci_runtime: there is no program youki"], id="none"),
    ],
)
def test_oci_runtime_that_does_not_work_or_could_be_quicker_is_found(
    root: Path, monkeypatch: pytest.MonkeyPatch, unified: bool, oci_runtime: str, found: list[str]
) -> None:
    for name in ("catatonit", "crun"):
        (root / name).touch(0o755)
    monkeypatch.setenv("PATH", str(root))
    cgroups = make_cgroups(root)
    (root / "unified").mkdir()
    (root / "unified" / "cgroup.controllers").touch()
    cgroups = replace(cgroups, unified=unified, trees=(*cgroups.trees, root / "unified"))

    assert whats(find_program_faults(cgroups, oci_runtime)) == found


@pytest.mark.parametrize(("path", "found"), [("/usr/sbin/mkfs.xfs", 0), (None, 1)])
def test_machine_without_the_default_file_system_of_ebs_volumes_is_found(
    monkeypatch: pytest.MonkeyPatch, path: str | None, found: int
) -> None:
    monkeypatch.setattr("fargate_agent.machine.programs.find_mkfs", {"xfs": path}.get)

    assert len(list(find_mkfs_faults())) == found


def test_machine_that_can_not_bound_storage_is_found(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "dev/loop-control").unlink()
    monkeypatch.setattr(storage, "find_mkfs", lambda _: None)

    found = list(find_volume_faults(root, required=False))
    assert [one.what for one in found] == [
        "this machine gives no loop devices (/dev/loop-control: No such file or directory)",
        "mkfs.ext4 is not installed, the package e2fsprogs of Debian",
    ]
    assert {one.effect for one in found} == {UNBOUNDED}
    refused = find_volume_faults(root, required=True)
    assert {one.effect for one in refused} == {"no task starts"}


def test_disk_without_room_for_a_task_is_found(tmp_path: Path) -> None:
    margin_mib = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize >> 20
    assert list(find_room_faults(Room(tmp_path, "sparse", 0))) == []
    assert list(find_room_faults(Room(tmp_path / "not there", "sparse", 0))) == []
    (found,) = find_room_faults(Room(tmp_path, "sparse", margin_mib))
    assert "that are kept free" in found.what
    assert found.effect == "no task of 20 GiB starts"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("nameserver 192.0.2.1\n", False, id="server"),
        pytest.param("nameserver 127.0.0.53\n", False, id="stub"),
        pytest.param("", True, id="none"),
    ],
)
def test_machine_without_a_dns_server_is_found(tmp_path: Path, text: str, found: bool) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(text)

    assert bool(whats(find_name_faults(file))) is found


@pytest.mark.parametrize(
    ("name", "what", "effect"),
    [
        pytest.param(
            "ipv4/conf/default/accept_redirects",
            "net.ipv4.conf.default.accept_redirects is 1, not 0, and /proc/sys is read-only",
            "no task starts",
            id="differs",
        ),
        pytest.param(
            None,
            "net.ipv4.ip_forward is 0, and /proc/sys is read-only",
            "tasks reach their own subnet, but no other network",
            id="is-as-tasks-need-it",
        ),
    ],
)
def test_read_only_setting_is_found_by_what_it_denies(
    tmp_path: Path, name: str | None, what: str, effect: str
) -> None:
    settings = {**TASK_SETTINGS, **METADATA_SETTINGS}
    for setting in (setting for setting in settings if setting.startswith("ipv4/")):
        file = tmp_path / "proc/sys/net" / setting
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1\n" if setting == name else f"{settings[setting]}\n")

    assert find_setting_fault(tmp_path) == Finding(what=what, effect=effect)


@pytest.mark.parametrize(
    ("inherits", "what"),
    [
        pytest.param("0", "net.ipv6.conf.all.accept_redirects is 1, not 0", id="by-default"),
        pytest.param("1", "net.ipv4.ip_forward is 0", id="as-the-host"),
    ],
)
def test_ipv6_of_a_new_namespace_is_as_the_kernel_has_it_and_not_as_the_host(
    tmp_path: Path, inherits: str, what: str
) -> None:
    settings = {**TASK_SETTINGS, **METADATA_SETTINGS, "core/devconf_inherit_init_net": inherits}
    for setting, value in settings.items():
        file = tmp_path / "proc/sys/net" / setting
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")

    assert find_setting_fault(tmp_path).what == f"{what}, and /proc/sys is read-only"


def test_full_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert whats(find_storage_faults(tmp_path / "agent")) == []

    monkeypatch.setattr(storage, "LITTLE_MIB", 1 << 40)
    monkeypatch.setattr(storage, "FEW_FILES", 1 << 60)

    assert f"less than {1 << 40} MiB is free in {tmp_path}/agent" in whats(
        find_storage_faults(tmp_path / "agent")
    )


def test_containerd_that_does_not_answer_is_found(tmp_path: Path) -> None:
    (finding,) = find_right_faults(tmp_path / "c.sock")

    assert finding == Finding(
        what=f"containerd doesn't answer at {tmp_path}/c.sock: No such file or directory",
        effect="no task starts until it does",
    )


def test_rights_that_every_container_should_have_are_found() -> None:
    limits = HostLimits(
        rlimits={"nofile": 1024}, capabilities=frozenset({"CHOWN"}), limits_swap=True
    )

    found = [what for what, _ in limits.default_shortfalls()]

    assert found[0] == "containerd may not raise its nofile limit above 1024"
    assert "containerd has no CAP_SETUID" in found


def test_swap_that_is_not_counted_matters_only_where_there_is_swap(root: Path) -> None:
    cgroups = make_cgroups(root)
    without = whats(find_cgroup_faults(root, cgroups))
    (root / "proc/swaps").write_text("Filename\n/dev/sda2\n")

    with_swap = whats(find_cgroup_faults(root, cgroups))
    (root / "memory/memory.memsw.limit_in_bytes").touch()

    assert without == []
    assert with_swap == ["the kernel doesn't count swap (swapaccount=1 on its command line does)"]
    assert whats(find_cgroup_faults(root, cgroups)) == []


@pytest.mark.parametrize(
    ("missing", "effect"),
    [("memory", "no task starts"), ("pids", "a task may start processes until")],
)
def test_controller_that_is_missing_is_found(root: Path, missing: str, effect: str) -> None:
    (finding,) = find_cgroup_faults(root, make_cgroups(root, without=missing))

    assert finding.what == f"this host has no cgroup controller {missing}"
    assert finding.effect.startswith(effect)


def test_machine_that_is_a_container_with_few_processes_is_found(root: Path) -> None:
    cgroups = make_cgroups(root)
    (root / "pids/pids.max").write_text("5000\n")
    (root / "pids/pids.current").write_text("1000\n")

    assert whats(find_process_faults(root, cgroups)) == [f"{root}/pids/pids.max is 5000"]
    (root / "pids/pids.max").write_text("max\n")
    assert list(find_process_faults(root, cgroups)) == []


def test_same_machine_gives_the_same_findings(tmp_path: Path) -> None:
    settings = AgentSettings(containerd_address=tmp_path / "c.sock", state_dir=tmp_path)

    first = look(settings)

    assert first == look(settings)
    assert len(set(first)) == len(first)
    assert list(tmp_path.iterdir()) == []
