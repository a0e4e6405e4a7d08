"""Control groups: version 2 on a tree of files, version 1 described by its mounts."""

from pathlib import Path

import pytest

from fargate_agent.runtime.cgroup import Cgroups, parse_cgroups

TASK = "/ecs/0123456789abcdef"

V2 = "30 23 0:26 / {tree} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = """\
31 23 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:30 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
35 31 0:31 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
36 31 0:32 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
37 31 0:33 /some/container /mnt/cgroup rw - cgroup cgroup rw,memory
"""
HYBRID = V1 + V2.format(tree="/sys/fs/cgroup/unified")


@pytest.fixture
def unified(tmp_path: Path) -> Cgroups:
    """A tree of files with the names of a v2 tree; the kernel would make those of the groups."""
    for group in (tmp_path, tmp_path / "ecs"):
        group.mkdir(exist_ok=True)
        (group / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids")
    return parse_cgroups(V2.format(tree=tmp_path), ("cpu", "memory", "pids"))


def test_v2_is_one_tree_for_all_controllers(unified: Cgroups, tmp_path: Path) -> None:
    assert unified.unified
    assert unified.trees == (tmp_path,)
    assert unified.missing_controllers() == ()


def test_v1_has_a_tree_per_controller() -> None:
    cgroups = parse_cgroups(V1, ())

    assert not cgroups.unified
    assert cgroups.controllers["cpu"] == cgroups.controllers["cpuacct"]
    assert cgroups.controllers["memory"] == Path("/sys/fs/cgroup/memory")
    assert len(cgroups.trees) == 5


def test_hybrid_is_v1_with_one_more_tree() -> None:
    cgroups = parse_cgroups(HYBRID, ("hugetlb",))

    assert not cgroups.unified
    assert Path("/sys/fs/cgroup/unified") in cgroups.trees
    assert cgroups.controllers["memory"] == Path("/sys/fs/cgroup/memory")


@pytest.mark.parametrize(
    ("mountinfo", "controllers", "missing"),
    [
        pytest.param(V2.format(tree="/x"), ("cpu", "pids"), ("memory",), id="v2"),
        pytest.param(V1.replace("rw,memory", "rw,pids"), (), ("memory",), id="v1"),
        pytest.param("", (), ("cpu", "memory", "devices", "freezer"), id="none at all"),
    ],
)
def test_what_isolation_needs_and_is_missing_is_named(
    mountinfo: str, controllers: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    assert parse_cgroups(mountinfo, controllers).missing_controllers() == missing


def test_v2_limits_are_written_and_controllers_handed_down(
    unified: Cgroups, tmp_path: Path
) -> None:
    group = tmp_path / TASK.lstrip("/")
    group.mkdir()
    (group / "memory.swap.max").touch()

    unified.ensure(TASK, memory_mib=512, pids_max=4224)
    unified.bound_cpu(TASK, 256)

    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (tmp_path / "ecs" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (group / "cpu.max").read_text() == "25000 100000"
    assert (group / "memory.max").read_text() == "536870912"
    assert (group / "memory.swap.max").read_text() == "0"
    assert (group / "pids.max").read_text() == "4224"


def test_v2_does_without_swap_limits_where_the_kernel_has_none(
    unified: Cgroups, tmp_path: Path
) -> None:
    unified.ensure(TASK, memory_mib=512, pids_max=4224)

    assert not unified.limits_swap(TASK)
    assert not (tmp_path / TASK.lstrip("/") / "memory.swap.max").exists()


def test_processes_are_not_bounded_where_the_kernel_can_not_count_them(tmp_path: Path) -> None:
    (tmp_path / "ecs").mkdir()
    for group in (tmp_path, tmp_path / "ecs"):
        (group / "cgroup.controllers").write_text("cpu memory")

    parse_cgroups(V2.format(tree=tmp_path), ("cpu", "memory")).ensure(
        TASK, memory_mib=None, pids_max=4224
    )

    assert not (tmp_path / TASK.lstrip("/") / "pids.max").exists()


def test_a_tiny_share_of_a_cpu_is_what_the_kernel_takes(unified: Cgroups, tmp_path: Path) -> None:
    unified.ensure(TASK, memory_mib=None, pids_max=4224)
    unified.bound_cpu(TASK, 2)

    assert (tmp_path / TASK.lstrip("/") / "cpu.max").read_text() == "1000 100000"


def test_v2_oom_kills_are_counted(unified: Cgroups, tmp_path: Path) -> None:
    group = tmp_path / "ecs" / "x"
    group.mkdir()
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\n")

    assert unified.read_oom_kills("/ecs/x") == 2


def test_v2_has_a_group_for_each_logger_beside_those_of_containers(
    unified: Cgroups, tmp_path: Path
) -> None:
    unified.ensure(TASK, memory_mib=None, pids_max=4224)

    for container in ("one", "two"):
        with unified.hold_loggers(f"{TASK}/{container}") as group:
            assert group == f"{TASK}/loggers/{container}"
            assert (tmp_path / group.lstrip("/")).is_dir()


def test_a_logger_is_there_as_long_as_a_process_is_in_its_group(
    unified: Cgroups, tmp_path: Path
) -> None:
    container = f"{TASK}/one"
    assert not unified.find_loggers(container)
    with unified.hold_loggers(container) as group:
        processes = tmp_path / group.lstrip("/") / "cgroup.procs"

    processes.write_text("7\n")
    assert unified.find_loggers(container)
    processes.write_text("")
    assert not unified.find_loggers(container)


def test_v1_counts_loggers_and_restricts_them_in_nothing_else(tmp_path: Path) -> None:
    names = ("cpu", "memory", "cpuset", "freezer")
    cgroups = Cgroups(
        trees=tuple(tmp_path / name for name in names),
        controllers={name: tmp_path / name for name in names},
        unified=False,
    )
    for name in names:
        (tmp_path / name / TASK.lstrip("/")).mkdir(parents=True)

    with cgroups.hold_loggers(f"{TASK}/container") as group:
        made = {name for name in names if (tmp_path / name / group.lstrip("/")).exists()}

    assert made == {"cpu", "memory"}


def test_a_group_that_is_gone_had_no_oom_kills(unified: Cgroups) -> None:
    assert unified.read_oom_kills("/ecs/gone") == 0


def test_remove_takes_away_what_is_below_and_the_empty_parent(tmp_path: Path) -> None:
    cgroups = Cgroups(trees=(tmp_path,), controllers={}, unified=False)
    (tmp_path / "ecs" / "task" / "container" / "inner").mkdir(parents=True)

    cgroups.remove("/ecs/task", 1)

    assert not (tmp_path / "ecs").exists()


def test_remove_leaves_the_parent_to_other_tasks(tmp_path: Path) -> None:
    cgroups = Cgroups(trees=(tmp_path,), controllers={}, unified=False)
    for task in ("task", "other"):
        (tmp_path / "ecs" / task).mkdir(parents=True)

    cgroups.remove("/ecs/task", 1)

    assert [path.name for path in (tmp_path / "ecs").iterdir()] == ["other"]


def test_remove_of_what_is_gone_succeeds(tmp_path: Path) -> None:
    Cgroups(trees=(tmp_path,), controllers={}, unified=False).remove("/ecs/task", 1)


def test_remove_gives_up_after_its_deadline(tmp_path: Path) -> None:
    cgroups = Cgroups(trees=(tmp_path,), controllers={}, unified=False)
    (tmp_path / "ecs" / "task").mkdir(parents=True)
    (tmp_path / "ecs" / "task" / "busy").touch()

    with pytest.raises(TimeoutError, match="control group /ecs/task is still in use after 0.02 s"):
        cgroups.remove("/ecs/task", 0.02)


def test_groups_of_a_process_are_found_in_every_tree_that_is_mounted(unified: Cgroups) -> None:
    (tree,) = unified.trees
    hybrid = parse_cgroups(HYBRID.replace("/sys/fs/cgroup", "/cg"), ())
    text = "12:pids:/p\n4:memory:/m/x\n3:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n"

    assert unified.parse_groups("0::/ecs/a:b\n") == (tree / "ecs/a:b",)
    assert set(hybrid.parse_groups(text)) == {
        Path("/cg/memory/m/x"),
        Path("/cg/cpu,cpuacct/c"),
        Path("/cg/systemd/s"),
        Path("/cg/unified/u"),
    }
