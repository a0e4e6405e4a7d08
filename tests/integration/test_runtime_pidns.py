"""One PID namespace for all containers of a task (`pidMode: task`)."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.containerd.processes import Processes
from fargate_agent.errors import CannotCreateContainerError, ExecTimeoutError
from fargate_agent.plan import TaskPlan
from tests.fixtures.execs import IDLE, run_inside
from tests.fixtures.machine import wait_for
from tests.fixtures.runtime import DEADLINE_S, Bench

pytestmark = pytest.mark.root

SHARED = {"pidMode": "task"}


def container(name: str, script: str, **changes: object) -> dict[str, object]:
    return {"name": name, "command": ["sh", "-c", f"exec 2>&1; {script}"], **changes}


async def begin(bench: Bench, *containers: dict[str, object], **task: object) -> TaskPlan:
    """Return when all containers of a task run."""
    plan = bench.plan(*containers, **{**SHARED, **task})
    await bench.runtime.prepare(plan)
    for one in plan.containers:
        await bench.runtime.start(plan, await bench.create(plan, one))
    return plan


async def find_first_process(bench: Bench, task: TaskPlan, name: str) -> int:
    (container,) = (one for one in task.containers if one.name == name)
    return (await bench.containerd.processes.get(container.id)).pid


async def test_containers_of_a_task_see_each_other(bench: Bench) -> None:
    task = await begin(
        bench,
        container(
            "looks", "until busybox ps | busybox grep '[s]leep 61'; do busybox usleep 20000; done"
        ),
        container("sleeps", "exec busybox sleep 61"),
    )

    status = await bench.runtime.wait(task.containers[0])

    assert status.code == 0


async def test_first_process_is_of_no_container_and_has_no_rights(bench: Bench) -> None:
    task = await begin(
        bench,
        container("web", "busybox tr '\\0' ' ' </proc/1/cmdline; echo; cat /proc/1/status"),
    )

    finished = await bench.finish(task)

    lines = [line.split() for line in finished.output.splitlines()]
    assert lines[0] == ["/dev/init", "-P"]
    for line in (
        ["Uid:", *["65534"] * 4],
        ["Gid:", *["65534"] * 4],
        ["Groups:"],
        ["CapPrm:", "0" * 16],
        ["CapBnd:", "0" * 16],
        ["NoNewPrivs:", "1"],
        ["Seccomp:", "2"],
    ):
        assert line in lines


async def test_whoever_takes_over_the_first_process_is_not_on_the_host(bench: Bench) -> None:
    task = await begin(
        bench,
        container(
            "web",
            "busybox ls /proc/1/root /proc/1/root/dev;"
            "for ns in ipc mnt uts net; do busybox readlink /proc/1/ns/$ns; done",
            linuxParameters={"capabilities": {"add": ["SYS_PTRACE"]}},
        ),
    )

    finished = await bench.finish(task)

    host = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("ipc", "mnt", "uts", "net")}
    found = set(finished.output.splitlines())
    assert f"net:[{bench.netns.stat().st_ino}]" in found
    assert len([one for one in found if ":[" in one]) == 4
    assert not found & host
    assert found >= {"/proc/1/root:", "dev", "proc", "init"}
    assert not found & {"bin", "etc", "var", "root"}


async def test_end_of_a_container_is_not_that_of_the_others_but_of_all_its_own(
    bench: Bench,
) -> None:
    task = await begin(
        bench,
        container("first", "(busybox setsid busybox sleep 62 &); echo up; exec busybox sleep 63"),
        container("second", "exec busybox sleep 64"),
    )
    await bench.wait_for_output(task, "up")
    second = await find_first_process(bench, task, "second")
    members = await bench.containerd.processes.pids(task.containers[0].id)
    assert len(members) == 2

    os.kill(await find_first_process(bench, task, "first"), signal.SIGKILL)

    assert (await bench.runtime.wait(task.containers[0])).code == 137
    wait_for(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in members),
        "what the container started to be gone, and no dead process left",
        DEADLINE_S,
    )
    assert b"64" in Path(f"/proc/{second}/cmdline").read_bytes()


async def test_orphan_is_taken_leave_of(bench: Bench) -> None:
    task = await begin(
        bench, container("web", "(busybox sleep 65 &); echo up; exec busybox sleep 60")
    )
    await bench.wait_for_output(task, "up")

    (pid,) = set(await bench.containerd.processes.pids(task.containers[0].id)) - {
        await find_first_process(bench, task, "web")
    }

    os.kill(pid, signal.SIGKILL)

    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the orphan to be gone", DEADLINE_S)


async def test_task_has_an_init_for_each_container_too(bench: Bench) -> None:
    task = await begin(
        bench, container("web", "exit 7", linuxParameters={"initProcessEnabled": True})
    )

    assert (await bench.finish(task)).status.code == 7


async def test_program_run_inside_leaves_nothing_at_its_deadline(bench: Bench) -> None:
    task = await begin(bench, container("web", IDLE), container("other", "exec sleep 60"))
    script = "(busybox setsid busybox sleep 67 &); busybox sleep 68"

    with pytest.raises(ExecTimeoutError):
        await run_inside(bench, task, script, deadline_s=1)

    texts = [
        Path(f"/proc/{pid}/cmdline").read_bytes()
        for one in task.containers
        for pid in await bench.containerd.processes.pids(one.id)
    ]
    assert not [text for text in texts if b"67" in text or b"68" in text]
    assert [text for text in texts if b"sleep\x0060" in text]


async def test_another_agent_finds_the_namespace(bench: Bench) -> None:
    task = await begin(bench, container("web", "busybox readlink /proc/1/ns/pid; exec sleep 60"))
    holder = f"{task.id}-pidns"
    before = await bench.containerd.processes.get(holder)

    await bench.prepare(task)

    assert await bench.containerd.processes.get(holder) == before


async def test_creation_that_was_cut_off_is_completed(bench: Bench) -> None:
    task = bench.plan(container("web", "exit 7"), **SHARED)
    await bench.prepare(task)
    await bench.containerd.processes.force_delete(f"{task.id}-pidns")

    await bench.prepare(task)

    await bench.runtime.start(task, await bench.create(task))
    assert (await bench.finish(task)).status.code == 7


async def test_container_is_started_again_in_the_namespace(bench: Bench) -> None:
    script = "busybox readlink /proc/self/ns/pid; cat /proc/1/cmdline; exit 3"
    task = await begin(bench, container("web", script), container("other", "exec sleep 60"))
    (first, _) = task.containers
    await bench.runtime.wait(first)

    await bench.runtime.restart(task, first, bench.log_uri(first))
    await bench.runtime.start(task, first)

    assert (await bench.runtime.wait(first)).code == 3
    await bench.runtime.stop(first)
    once, again = bench.output_file(first).read_text().split("\0-P\0", 1)
    assert once == again.removesuffix("\0-P\0")


async def test_container_is_not_started_again_in_another_namespace(bench: Bench) -> None:
    task = await begin(bench, container("web", "exec sleep 60"))
    await bench.containerd.processes.kill(f"{task.id}-pidns", signal.SIGKILL)
    assert (await bench.runtime.wait(task.containers[0])).code == 137

    with pytest.raises(CannotCreateContainerError, match="that of the task has ended"):
        await bench.runtime.restart(task, task.containers[0], None)
    await bench.prepare(task)
    with pytest.raises(CannotCreateContainerError, match="that of the task has ended"):
        await bench.runtime.restart(task, task.containers[0], None)


async def test_holder_is_made_where_the_creation_of_one_was_cut_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Processes.create
    faults = [ContainerdError("the bundle of the one before has just been removed")]

    async def create_late(processes: Processes, id_: str, *args: Any, **options: Any) -> int:
        if faults:
            raise faults.pop()
        return await create(processes, id_, *args, **options)

    monkeypatch.setattr(Processes, "create", create_late)

    task = await begin(bench, container("web", "exit 7"))

    assert (await bench.finish(task)).status.code == 7


async def test_nothing_is_left(bench: Bench) -> None:
    task = await begin(bench, container("web", "exit 7"))
    (pid,) = [
        one.pid for one in await bench.containerd.processes.list() if one.id.endswith("-pidns")
    ]

    await bench.finish(task)

    assert await bench.traces(task) == []
    assert not Path(f"/proc/{pid}").exists()


async def test_what_a_crash_left_is_swept(bench: Bench) -> None:
    task = await begin(bench, container("web", "exec sleep 60"))

    await bench.runtime.sweep(kept=())

    assert [one for one in await bench.traces(task) if not one.startswith("directory")] == []
