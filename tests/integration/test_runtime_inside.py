"""What a container finds around itself under real runC; each test asks from inside."""

from typing import Any

import pytest

from fargate_agent.drivers import ImageConfig
from tests.fixtures.runtime import ETC, Bench

pytestmark = pytest.mark.root

DEFAULT_CAPABILITIES = 0xA80425FB
"""Docker's 14, as capsh decodes them."""

SYS_PTRACE = 1 << 19
CHOWN = 1 << 0


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        pytest.param(None, "uid=0(root) gid=0(root) groups=0(root)", id="none"),
        pytest.param("web", "uid=1000(web) gid=1001(web) groups=1001(web),1002(logs)", id="name"),
        pytest.param("web:logs", "uid=1000(web) gid=1002(logs) groups=1002(logs)", id="group"),
        pytest.param("4321:8765", "uid=4321 gid=8765 groups=8765", id="unknown numbers"),
    ],
)
async def test_a_container_runs_as_its_user(bench: Bench, user: str | None, ids: str) -> None:
    finished = await bench.run("id", user=user)

    assert finished.output.strip() == ids


async def test_the_environment_is_the_images_changed_by_the_tasks(bench: Bench) -> None:
    bench.config = ImageConfig(
        command=("sh",), environment=("PATH=/bin:/own", "COLOUR=red", "SHAPE=round")
    )

    finished = await bench.run("busybox env", environment={"COLOUR": "blue"})

    lines = finished.output.splitlines()
    assert {"PATH=/bin:/own", "COLOUR=blue", "SHAPE=round", "HOME=/root"} <= set(lines)
    assert "HOSTNAME=ip-10-213-0-5.ec2.internal" in lines


@pytest.mark.parametrize(
    ("own", "directory"),
    [pytest.param(None, "/var/run", id="of the image"), pytest.param("/new/one", "/new/one")],
)
async def test_a_container_begins_in_its_working_directory(
    bench: Bench, own: str | None, directory: str
) -> None:
    bench.config = ImageConfig(command=("sh",), working_directory="/var/run")

    finished = await bench.run("pwd", workingDirectory=own)

    assert finished.output.strip() == directory


@pytest.mark.parametrize(
    ("changes", "mask"),
    [
        pytest.param({}, DEFAULT_CAPABILITIES, id="default"),
        pytest.param({"add": ["SYS_PTRACE"]}, DEFAULT_CAPABILITIES | SYS_PTRACE, id="added"),
        pytest.param({"drop": ["CHOWN"]}, DEFAULT_CAPABILITIES & ~CHOWN, id="dropped"),
        pytest.param({"drop": ["ALL"], "add": ["CHOWN"]}, CHOWN, id="all but one dropped"),
    ],
)
async def test_root_has_the_capabilities_of_the_definition(
    bench: Bench, changes: dict[str, Any], mask: int
) -> None:
    finished = await bench.run(
        "busybox grep CapEff /proc/self/status", linuxParameters={"capabilities": changes}
    )

    assert int(finished.output.split()[1], 16) == mask


async def test_another_user_has_no_capabilities(bench: Bench) -> None:
    finished = await bench.run("busybox grep CapEff /proc/self/status", user="1000")

    assert int(finished.output.split()[1], 16) == 0


async def test_system_calls_are_filtered(bench: Bench) -> None:
    finished = await bench.run("busybox grep Seccomp: /proc/self/status")

    assert finished.output.split() == ["Seccomp:", "2"]


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param("unshare -m true", id="unshare"),
        pytest.param("unshare -U true", id="user namespace"),
        pytest.param("mount -t tmpfs tmpfs /tmp", id="mount"),
        pytest.param("nsenter -t 1 -m true", id="setns"),
        pytest.param("hostname other", id="sethostname"),
    ],
)
async def test_the_filter_refuses_even_root(bench: Bench, attempt: str) -> None:
    finished = await bench.run(f"busybox {attempt}")

    assert finished.status.code != 0
    assert "not permitted" in finished.output or "permission denied" in finished.output


async def test_what_tells_of_the_host_is_hidden(bench: Bench) -> None:
    finished = await bench.run(
        "cat /proc/keys /proc/timer_list | busybox wc -c; ls -A /sys/firmware | busybox wc -l;"
        "echo 1 >/proc/sys/kernel/panic || echo 1 >/proc/sysrq-trigger || echo read-only"
    )

    assert finished.output.split()[:2] == ["0", "0"]
    assert finished.output.endswith("read-only\n")


async def test_only_harmless_devices_can_be_used(bench: Bench) -> None:
    finished = await bench.run(
        "busybox mknod /disk b 254 0; head -c1 /disk; echo; head -c1 /dev/zero | busybox od -An -d"
    )

    assert "/disk: Operation not permitted" in finished.output
    assert finished.output.split()[-1] == "0"


async def test_the_cgroup_path_names_task_and_container(bench: Bench) -> None:
    task = await bench.begin("cat /proc/self/cgroup")

    finished = await bench.finish(task)

    container_id = task.containers[0].id
    suffixes = (f"/ecs/{task.id}/{container_id}", f"/ecs-{container_id}.scope")
    assert all(line.endswith(suffixes) for line in finished.output.splitlines())


async def test_any_user_may_bind_low_ports(bench: Bench) -> None:
    finished = await bench.run(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range",
        user="1000",
    )

    assert finished.output.split() == ["0", "0", "2147483647"]


async def test_the_host_name_is_the_enis(bench: Bench) -> None:
    finished = await bench.run("busybox hostname")

    assert finished.output.strip() == "ip-10-213-0-5.ec2.internal"


async def test_the_network_namespace_is_the_tasks(bench: Bench) -> None:
    finished = await bench.run("busybox readlink /proc/self/ns/net")

    assert finished.output.strip() == f"net:[{bench.netns.stat().st_ino}]"


async def test_the_tasks_files_are_in_etc_and_can_be_changed(bench: Bench) -> None:
    finished = await bench.run("cat /etc/hosts /etc/hostname /etc/resolv.conf; echo >>/etc/hosts")

    assert finished.output == ETC["hosts"] + ETC["hostname"] + ETC["resolv.conf"]


async def test_a_read_only_root_cannot_be_written_and_volumes_can(bench: Bench) -> None:
    finished = await bench.run(
        "echo >/file; echo >>/etc/hosts; echo kept >/data/file && cat /data/file",
        readonlyRootFilesystem=True,
        mountPoints=[{"sourceVolume": "data", "containerPath": "/data"}],
        task={"volumes": [{"name": "data"}]},
    )

    assert "can't create /file: Read-only file system" in finished.output
    assert "can't create /etc/hosts: Read-only file system" in finished.output
    assert finished.output.endswith("kept\n")


async def test_a_tmpfs_has_its_size_and_options(bench: Bench) -> None:
    finished = await bench.run(
        "busybox grep /cache /proc/self/mountinfo",
        linuxParameters={
            "tmpfs": [{"containerPath": "/cache", "size": 8, "mountOptions": ["exec", "mode=700"]}]
        },
    )

    assert " /cache rw,nosuid,nodev,relatime " in finished.output
    assert "size=8192k,mode=700" in finished.output


async def test_shared_memory_is_64_mib(bench: Bench) -> None:
    finished = await bench.run("busybox df -k /dev/shm | busybox tail -1")

    assert finished.output.split()[1] == "65536"


async def test_two_containers_share_a_volume(bench: Bench) -> None:
    point = {"sourceVolume": "data", "containerPath": "/data"}
    task = bench.plan(
        {"name": "reader", "command": ["sh", "-c", "cat /data/file; echo >/data/x"],
         "mountPoints": [{**point, "readOnly": True}]},
        {"name": "writer", "command": ["sh", "-c", "ls -ld /data; echo shared >/data/file"],
         "mountPoints": [point]},
        volumes=[{"name": "data"}],
    )  # fmt: skip
    reader, writer = sorted(task.containers, key=lambda container: container.name)
    await bench.prepare(task)

    for container in (writer, reader):
        await bench.runtime.start(task, await bench.create(task, container))
        await bench.runtime.wait(container)
        await bench.runtime.stop(container)

    assert bench.output_file(writer).read_text().startswith("drwxr-xr-x")
    seen = bench.output_file(reader).read_text()  # of two pipes, in whatever order
    assert "shared\n" in seen
    assert "Read-only file system" in seen


async def test_a_terminal_is_one(bench: Bench) -> None:
    finished = await bench.run("busybox tty; echo $TERM", pseudoTerminal=True)

    assert finished.output.split() == ["/dev/pts/0", "xterm"]
