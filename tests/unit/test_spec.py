"""The OCI specification that a plan and an image make; what runC does with it, others test."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import ImageConfig
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.plan import MountPlan, TaskPlan, TmpfsPlan, UlimitPlan, plan_task
from fargate_agent.runtime.host import DEFAULT_CAPABILITIES, HostLimits
from fargate_agent.runtime.spec import plan_args, plan_environment, render_spec
from fargate_agent.runtime.users import ContainerUser
from tests.messages import site, task_message

HOST = HostLimits(
    rlimits={}, capabilities=frozenset({*DEFAULT_CAPABILITIES, "SYS_PTRACE"}), limits_swap=True
)
ROOT = ContainerUser(uid=0, gid=0, additional_gids=(0,))
MIB = 1 << 20


@pytest.fixture
def task(tmp_path: Path) -> TaskPlan:
    return plan_task(task_message(), site(tmp_path))


def changed(task: TaskPlan, **changes: Any) -> TaskPlan:
    """Change the only container of a task."""
    return replace(task, containers=(replace(task.containers[0], **changes),))


def spec_of(
    task: TaskPlan,
    image: ImageConfig | None = None,
    user: ContainerUser = ROOT,
    host: HostLimits = HOST,
) -> Any:
    config = image or ImageConfig(command=("run",))
    return json.loads(render_spec(task, task.containers[0], config, user, host))


def mount_at(spec: Any, destination: str) -> Any:
    return next(mount for mount in spec["mounts"] if mount["destination"] == destination)


@pytest.mark.parametrize(
    ("entry_point", "command", "args"),
    [
        pytest.param(None, None, ["/init", "serve"], id="image alone"),
        pytest.param(None, ("check",), ["/init", "check"], id="command replaces command"),
        pytest.param(("/own",), None, ["/own"], id="entry point drops the image's command"),
        pytest.param(("/own",), ("check",), ["/own", "check"], id="both"),
        pytest.param((), (), ["/init", "serve"], id="empty is as none"),
    ],
)
def test_what_runs_follows_docker(
    task: TaskPlan,
    entry_point: tuple[str, ...] | None,
    command: tuple[str, ...] | None,
    args: list[str],
) -> None:
    container = changed(task, entry_point=entry_point, command=command).containers[0]
    image = ImageConfig(entrypoint=("/init",), command=("serve",))

    assert plan_args(container, image) == args


def test_nothing_to_run_is_refused(task: TaskPlan) -> None:
    with pytest.raises(CannotCreateContainerError, match="no command specified"):
        plan_args(task.containers[0], ImageConfig())


def test_environment_is_the_tasks_over_the_images_over_defaults(task: TaskPlan) -> None:
    container = changed(task, environment={"B": "task", "C": "x=y"}).containers[0]
    image = ImageConfig(environment=("A=image", "B=image", "EMPTY=", "no variable"))

    environment = plan_environment(task, container, image)

    assert environment == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=ip-10-213-0-5.ec2.internal",
        "A=image",
        "B=task",
        "EMPTY=",
        "C=x=y",
    ]


@pytest.mark.parametrize(
    ("own", "images", "cwd"),
    [(None, "", "/"), (None, "/srv", "/srv"), ("/own", "/srv", "/own"), ("own", "", "/own")],
)
def test_working_directory_is_absolute(
    task: TaskPlan, own: str | None, images: str, cwd: str
) -> None:
    image = ImageConfig(command=("run",), working_directory=images)

    assert spec_of(changed(task, working_directory=own), image)["process"]["cwd"] == cwd


def test_namespaces_are_own_but_for_the_network_and_the_cgroup(task: TaskPlan) -> None:
    linux = spec_of(task)["linux"]

    assert {one["type"]: one.get("path") for one in linux["namespaces"]} == {
        "pid": None,
        "ipc": None,
        "uts": None,
        "mount": None,
        "network": str(task.netns),
    }
    assert linux["cgroupsPath"] == f"/ecs/{task.id}/{task.containers[0].id}"


@pytest.mark.parametrize(
    ("limits_swap", "memory"),
    [
        pytest.param(
            True,
            {"limit": 64 * MIB, "swap": 64 * MIB, "reservation": 32 * MIB},
            id="swap can be limited",
        ),
        pytest.param(False, {"limit": 64 * MIB, "reservation": 32 * MIB}, id="it can't"),
    ],
)
def test_memory_is_limited_without_swap(
    task: TaskPlan, limits_swap: bool, memory: dict[str, int]
) -> None:
    task = changed(task, memory_mib=64, memory_reservation_mib=32)

    spec = spec_of(task, host=replace(HOST, limits_swap=limits_swap))

    assert spec["linux"]["resources"]["memory"] == memory


def test_a_container_without_limits_of_its_own_has_the_tasks_only(task: TaskPlan) -> None:
    resources = spec_of(task)["linux"]["resources"]

    assert resources["memory"] == {}
    assert resources["cpu"] == {"shares": 2}


def test_unlimited_is_the_largest_number(task: TaskPlan) -> None:
    task = changed(task, ulimits=(UlimitPlan(name="memlock", soft=-1, hard=-1),))

    assert {
        "type": "RLIMIT_MEMLOCK",
        "soft": 18446744073709551615,
        "hard": 18446744073709551615,
    } in spec_of(task)["process"]["rlimits"]


def test_only_root_has_capabilities_at_once(task: TaskPlan) -> None:
    other = ContainerUser(uid=1000, gid=1000, additional_gids=(1000,))

    roots, others = (spec_of(task, user=user)["process"]["capabilities"] for user in (ROOT, other))

    assert len(roots["effective"]) == len(roots["bounding"]) == 14
    assert others["effective"] == others["permitted"] == []
    assert others["bounding"] == roots["bounding"]
    assert "inheritable" not in roots
    assert "ambient" not in roots


def test_mounts_come_after_those_they_lie_in(task: TaskPlan, tmp_path: Path) -> None:
    task = changed(
        task,
        mounts=(
            MountPlan(source=tmp_path / "b", destination="/data/inner", read_only=True),
            MountPlan(source=tmp_path / "a", destination="/data", read_only=False),
        ),
        tmpfs=(TmpfsPlan(destination="/data/inner/cache", size_mib=8, options=()),),
    )

    spec = spec_of(task)

    own = [m["destination"] for m in spec["mounts"] if m["destination"].startswith("/data")]
    assert own == ["/data", "/data/inner", "/data/inner/cache"]
    assert mount_at(spec, "/data/inner")["options"] == ["rbind", "rprivate", "nodev", "ro"]


def test_processes_are_limited_where_the_host_can_count_them(task: TaskPlan) -> None:
    limited = spec_of(task, host=replace(HOST, pids_limit=4096))

    assert limited["linux"]["resources"]["pids"] == {"limit": 4096}
    assert "pids" not in spec_of(task)["linux"]["resources"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param((), ["noexec", "nosuid", "nodev", "size=8m"], id="default"),
        pytest.param(("exec",), ["nosuid", "nodev", "exec", "size=8m"], id="opposite wins"),
        pytest.param(
            ("defaults", "mode=700"),
            ["noexec", "nosuid", "nodev", "mode=700", "size=8m"],
            id="defaults",
        ),
    ],
)
def test_tmpfs_is_closed_unless_the_definition_says_otherwise(
    task: TaskPlan, options: tuple[str, ...], expected: list[str]
) -> None:
    task = changed(task, tmpfs=(TmpfsPlan(destination="/cache", size_mib=8, options=options),))

    assert mount_at(spec_of(task), "/cache")["options"] == expected


@pytest.mark.parametrize(("read_only", "access"), [(False, "rw"), (True, "ro")])
def test_etc_files_are_as_writable_as_the_root(
    task: TaskPlan, read_only: bool, access: str
) -> None:
    spec = spec_of(changed(task, readonly_rootfs=read_only))

    assert spec["root"]["readonly"] is read_only
    for name in ("hosts", "hostname", "resolv.conf"):
        mount = mount_at(spec, f"/etc/{name}")
        assert mount["source"] == str(task.storage / "etc" / name)
        assert mount["options"][-1] == access


def test_a_long_host_name_is_cut_to_what_the_kernel_takes(task: TaskPlan) -> None:
    task = replace(task, dns=replace(task.dns, hostname="h" * 100))

    assert len(spec_of(task)["hostname"]) == 64


def test_an_init_runs_what_else_would_be_run(task: TaskPlan) -> None:
    host = replace(HOST, init_program=Path("/usr/bin/an-init"))

    spec = spec_of(changed(task, init=True), host=host)

    assert spec["process"]["args"] == ["/dev/init", "--", "run"]
    assert mount_at(spec, "/dev/init")["source"] == "/usr/bin/an-init"
    assert "ro" in mount_at(spec, "/dev/init")["options"]


def test_without_an_init_on_the_host_none_is_left_out_silently(task: TaskPlan) -> None:
    with pytest.raises(CannotCreateContainerError, match="no program catatonit"):
        spec_of(changed(task, init=True))


def test_apparmor_confines_where_its_profile_is_loaded(task: TaskPlan) -> None:
    confined = spec_of(task, host=replace(HOST, apparmor_profile="fargate-default"))

    assert confined["process"]["apparmorProfile"] == "fargate-default"
    assert "apparmorProfile" not in spec_of(task)["process"]
