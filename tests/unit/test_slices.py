"""The systemd driver, with a system bus whose systemd keeps its slices as directories."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fargate_agent.runtime.slices import Slices, plan_cpu_weight, render_slice
from fargate_agent.runtime.systemd import SystemdError, open_manager
from tests.fixtures.systemd import FakeSystemd

ID = "0123456789abcdef0123456789abcdef"
TASK = f"/ecs/{ID}"
CONTAINER = f"{TASK}/{ID}-0000000042"
TASK_SLICE = f"ecstasks-{ID}.slice"
CONTAINER_SLICE = f"ecstasks-{ID}-0000000042.slice"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeSystemd]:
    fake = FakeSystemd(address=tmp_path / "bus", tree=tmp_path / "tree")
    with fake.serve():
        yield fake


@pytest.fixture
def slices(systemd: FakeSystemd) -> Slices:
    return Slices(tree=systemd.tree, connect=partial(open_manager, bus=systemd.address))


def test_a_task_is_a_slice_and_a_container_one_in_it(slices: Slices) -> None:
    assert render_slice(TASK) == TASK_SLICE
    assert render_slice(CONTAINER) == CONTAINER_SLICE
    assert slices.render_path(CONTAINER) == f"{CONTAINER_SLICE}:ecs:{ID}-0000000042"


def test_dashes_of_an_id_nest_no_slices() -> None:
    old = "01234567-89ab-cdef-0123-456789abcdef"

    assert render_slice(f"/ecs/{old}") == f"ecstasks-{old.replace('-', '.')}.slice"
    assert render_slice(f"/ecs/{old}/{old}-7") == f"ecstasks-{old.replace('-', '.')}-7.slice"


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (512, 20), (1024, 39), (262_144, 10_000)])
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert plan_cpu_weight(shares) == weight


def test_a_task_is_made_with_its_limits(slices: Slices, systemd: FakeSystemd) -> None:
    assert not slices.exists(TASK)

    slices.ensure(TASK, memory_mib=512, pids_max=4224)
    slices.bound_cpu(TASK, 256)

    assert slices.exists(TASK)
    properties = systemd.properties[TASK_SLICE]
    assert (properties["MemoryMax"], properties["MemorySwapMax"]) == (512 << 20, 0)
    assert properties["TasksMax"] == 4224
    assert (properties["CPUQuotaPerSecUSec"], properties["CPUQuotaPeriodUSec"]) == (
        250_000,
        100_000,
    )


def test_a_task_that_is_there_gets_its_limits_again(slices: Slices, systemd: FakeSystemd) -> None:
    slices.ensure(TASK, memory_mib=256, pids_max=4224)

    slices.ensure(TASK, memory_mib=512, pids_max=4224)

    assert systemd.properties[TASK_SLICE]["MemoryMax"] == 512 << 20


def test_a_tiny_share_of_a_cpu_is_what_the_kernel_takes(
    slices: Slices, systemd: FakeSystemd
) -> None:
    slices.ensure(TASK, memory_mib=None, pids_max=4224)
    slices.bound_cpu(TASK, 2)

    assert systemd.properties[TASK_SLICE]["CPUQuotaPerSecUSec"] == 10_000
    assert "MemoryMax" not in systemd.properties[TASK_SLICE]


def test_a_container_has_its_share_and_reservation_among_its_siblings(
    slices: Slices, systemd: FakeSystemd
) -> None:
    slices.ensure_container(CONTAINER, cpu_shares=512, memory_reservation_mib=64)

    properties = systemd.properties[CONTAINER_SLICE]
    assert (properties["CPUWeight"], properties["MemoryLow"]) == (20, 64 << 20)


def test_a_logger_has_a_delegated_scope_beside_the_containers_slice(
    slices: Slices, systemd: FakeSystemd
) -> None:
    slices.ensure(TASK, memory_mib=None, pids_max=4224)
    scope = f"ecs-{ID}-0000000042-logger.scope"

    with slices.hold_loggers(CONTAINER) as group:
        (keeper,) = systemd.properties[scope]["PIDs"]
        kept = Path(f"/proc/{keeper}/comm").read_text()

    assert group == f"/ecstasks.slice/{TASK_SLICE}/{scope}"
    assert (systemd.tree / group.lstrip("/")).is_dir()
    assert systemd.properties[scope]["Delegate"] is True
    assert systemd.properties[scope]["Slice"] == TASK_SLICE
    assert kept == "cat\n"
    assert not Path(f"/proc/{keeper}").exists()


def test_a_logger_is_there_as_long_as_its_scope_is_populated(
    slices: Slices, systemd: FakeSystemd
) -> None:
    slices.ensure(TASK, memory_mib=None, pids_max=4224)
    assert not slices.find_loggers(CONTAINER)
    with slices.hold_loggers(CONTAINER) as group:
        processes = systemd.tree / group.lstrip("/") / "cgroup.procs"

    processes.write_text("7\n")
    assert slices.find_loggers(CONTAINER) == {7}
    processes.write_text("")
    assert not slices.find_loggers(CONTAINER)


def test_a_container_is_where_its_processes_say(slices: Slices) -> None:
    task = f"/ecstasks.slice/{TASK_SLICE}"

    assert slices.locate(TASK) == task
    assert slices.locate(CONTAINER) == f"{task}/{CONTAINER_SLICE}"


def test_scope_of_a_predecessor_is_ended_first(slices: Slices, systemd: FakeSystemd) -> None:
    slices.ensure(TASK, memory_mib=None, pids_max=4224)
    for _ in range(2):  # here the scope doesn't end with its last process
        with slices.hold_loggers(CONTAINER):
            pass

    assert systemd.calls.count("StopUnit") == 1
    assert systemd.states[f"ecs-{ID}-0000000042-logger.scope"] == "active"


def test_no_process_is_left_when_systemd_refuses_the_scope(
    slices: Slices, systemd: FakeSystemd
) -> None:
    slices.ensure(TASK, memory_mib=None, pids_max=4224)
    systemd.job_result = "failed"

    with (
        pytest.raises(SystemdError, match="-logger.scope: failed"),
        slices.hold_loggers(CONTAINER),
    ):
        pass

    ((keeper,),) = [told["PIDs"] for told in systemd.properties.values() if "PIDs" in told]
    assert not Path(f"/proc/{keeper}").exists()


def test_oom_kills_are_read_from_the_containers_slice(slices: Slices, systemd: FakeSystemd) -> None:
    slices.ensure_container(CONTAINER, cpu_shares=2, memory_reservation_mib=None)
    group = systemd.directory(CONTAINER_SLICE)
    (group / "memory.events").write_text("low 0\noom 2\noom_kill 2\n")

    assert slices.read_oom_kills(CONTAINER) == 2
    assert slices.read_oom_kills(f"{TASK}/{ID}-gone") == 0


def test_remove_ends_the_slice_and_forgets_what_failed_in_it(
    slices: Slices, systemd: FakeSystemd
) -> None:
    slices.ensure(TASK, memory_mib=None, pids_max=4224)
    slices.ensure_container(CONTAINER, cpu_shares=2, memory_reservation_mib=None)
    systemd.states[f"ecs-{ID}-0000000042.scope"] = "failed"
    systemd.states["ecstasks-other.slice"] = "active"

    slices.remove(TASK, 1)

    assert systemd.states == {"ecstasks-other.slice": "active"}
    assert not slices.exists(TASK)


def test_remove_of_what_is_gone_succeeds(slices: Slices) -> None:
    slices.remove(TASK, 1)


def test_remove_gives_up_on_a_process_that_does_not_end(
    slices: Slices, systemd: FakeSystemd
) -> None:
    slices.ensure(TASK, memory_mib=None, pids_max=4224)
    for name, text in (("cgroup.events", "populated 1\n"), ("cgroup.kill", "")):
        (systemd.directory(TASK_SLICE) / name).write_text(text)

    with pytest.raises(TimeoutError, match=f"slice of {TASK} is still in use after 0.02 s"):
        slices.remove(TASK, 0.02)

    assert (systemd.directory(TASK_SLICE) / "cgroup.kill").read_text() == "1"


def test_a_refusal_is_told_in_systemds_words(slices: Slices, systemd: FakeSystemd) -> None:
    systemd.refused["StartTransientUnit"] = ("AccessDenied", "Permission denied")

    with pytest.raises(SystemdError, match="systemd: StartTransientUnit: Permission denied"):
        slices.ensure(TASK, memory_mib=None, pids_max=4224)


@pytest.mark.parametrize("place", ["/proc", "/"])
def test_a_refusal_says_that_systemd_has_no_room_for_units(
    slices: Slices, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("fargate_agent.runtime.systemd.RUN", Path(place))
    systemd.refused["StartTransientUnit"] = ("NoSuchUnit", "Unit x.slice not found.")

    with pytest.raises(SystemdError) as error:
        slices.ensure(TASK, memory_mib=None, pids_max=4224)

    cause = "no space left in /proc: " if place == "/proc" else ""  # which never has room
    assert str(error.value) == f"systemd: {cause}StartTransientUnit: Unit x.slice not found."


def test_a_job_that_fails_is_an_error(slices: Slices, systemd: FakeSystemd) -> None:
    systemd.job_result = "failed"

    with pytest.raises(SystemdError, match=f"systemd: start of {TASK_SLICE}: failed"):
        slices.ensure(TASK, memory_mib=None, pids_max=4224)


@pytest.mark.parametrize("method", ["Hello", "Subscribe", "StartTransientUnit"])
def test_whoever_does_not_answer_is_given_up(systemd: FakeSystemd, method: str) -> None:
    systemd.silent.add(method)

    with (
        pytest.raises(TimeoutError, match="systemd took longer than 0.1 s"),
        open_manager(0.1, systemd.address) as manager,
    ):
        manager.start_slice(TASK_SLICE, [])


def test_a_bus_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(SystemdError, match=f"system bus {tmp_path}/bus: No such file"),
        open_manager(1, tmp_path / "bus"),
    ):
        pass
