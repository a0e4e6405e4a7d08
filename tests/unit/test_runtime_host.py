"""What a host that denies things still gives."""

from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.apparmor import UNCONFINED
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan, UlimitPlan, plan_task
from fargate_agent.runtime.host import (
    DEFAULT_CAPABILITIES,
    HostLimits,
    parse_capabilities,
    parse_rlimits,
    plan_capabilities,
    require_isolation,
)
from tests.messages import site, task_message

LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max file size             unlimited            unlimited            bytes
Max open files            1024                 20000                files
Max processes             96365                96365                processes
Max nice priority         0                    0
"""


@pytest.fixture
def container(tmp_path: Path) -> ContainerPlan:
    return plan_task(task_message(), site(tmp_path)).containers[0]


def host(**rlimits: int) -> HostLimits:
    return HostLimits(
        rlimits=rlimits,
        capabilities=frozenset(DEFAULT_CAPABILITIES),
        limits_swap=True,
        pids_limit=4096,
    )


def ulimit(name: str, soft: int, hard: int) -> UlimitPlan:
    return UlimitPlan(name=name, soft=soft, hard=hard)


def test_only_limits_that_bind_are_read() -> None:
    assert parse_rlimits(LIMITS) == {"nofile": 20000, "nproc": 96365, "nice": 0}


def test_capabilities_are_read_by_their_bits() -> None:
    every = parse_capabilities("Name:\tx\nCapPrm:\t000001ffffffffff\n")
    few = parse_capabilities("CapPrm:\t00000000a80425fb\n")

    assert len(every) == 41
    assert few == frozenset(DEFAULT_CAPABILITIES)


@pytest.mark.parametrize(
    ("own", "bound", "expected"),
    [
        pytest.param(None, None, ulimit("nofile", 65535, 65535), id="default"),
        pytest.param(None, 20000, ulimit("nofile", 20000, 20000), id="default cut"),
        pytest.param(
            ulimit("nofile", 1024, 1048576),
            20000,
            ulimit("nofile", 1024, 20000),
            id="hard limit cut",
        ),
        pytest.param(
            ulimit("nofile", -1, -1), 20000, ulimit("nofile", 20000, 20000), id="unlimited cut"
        ),
        pytest.param(ulimit("nofile", -1, -1), None, ulimit("nofile", -1, -1), id="unlimited"),
    ],
)
def test_limits_are_cut_to_what_is_possible(
    container: ContainerPlan, own: UlimitPlan | None, bound: int | None, expected: UlimitPlan
) -> None:
    container = replace(container, ulimits=(own,) if own else ())
    limits = host(nofile=bound) if bound else host()

    assert limits.fit_ulimits(container) == (expected,)


def test_what_is_cut_is_said(container: ContainerPlan) -> None:
    container = replace(container, add_capabilities=("SYS_PTRACE",))

    assert list(host(nofile=20000).shortfalls(container)) == [
        (
            "containerd may not raise its nofile limit above 20000",
            "containers get a nofile limit of 20000 at most",
        ),
        (
            "containerd has no CAP_SYS_PTRACE",
            "containers that should have CAP_SYS_PTRACE go without it",
        ),
    ]


def test_nothing_is_said_of_a_default_that_the_definition_replaces(
    container: ContainerPlan,
) -> None:
    container = replace(container, ulimits=(ulimit("nofile", 100, 100),))

    assert list(host(nofile=20000).shortfalls(container)) == []


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        pytest.param((), (), set(DEFAULT_CAPABILITIES), id="default"),
        pytest.param(("SYS_PTRACE",), ("ALL",), {"SYS_PTRACE"}, id="drop ALL keeps what is added"),
        pytest.param((), ("ALL",), set(), id="drop ALL"),
        pytest.param(("cap_sys_ptrace",), ("ALL",), {"SYS_PTRACE"}, id="other spellings"),
        pytest.param(("NOSUCH",), ("ALL",), set(), id="unknown"),
    ],
)
def test_capabilities_are_added_and_dropped(
    container: ContainerPlan, add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]
) -> None:
    container = replace(container, add_capabilities=add, drop_capabilities=drop)

    assert plan_capabilities(container) == expected


def test_capabilities_that_the_host_lacks_are_not_asked_for(container: ContainerPlan) -> None:
    limits = HostLimits(rlimits={}, capabilities=frozenset({"CHOWN"}), limits_swap=False)

    assert limits.fit_capabilities(container) == ("CAP_CHOWN",)


def test_a_host_that_can_not_count_processes_says_so(container: ContainerPlan) -> None:
    assert list(host().shortfalls(container)) == []
    assert list(replace(host(), pids_limit=None).shortfalls(container)) == [
        (
            "this host has no cgroup controller pids",
            "a task may start processes until the machine has no room for more",
        )
    ]


def test_a_host_that_cannot_isolate_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(ResourceInitializationError, match="lacks the cgroup controller 'memory'"):
        require_isolation(["memory"])


def test_profile_of_apparmor_that_is_not_loaded_is_said(container: ContainerPlan) -> None:
    limits = HostLimits(
        rlimits={}, capabilities=frozenset(DEFAULT_CAPABILITIES), limits_swap=True, pids_limit=1
    )

    lacking = replace(limits, lacks_apparmor_profile=True)

    assert UNCONFINED in tuple(lacking.shortfalls(container))
    assert UNCONFINED in tuple(lacking.default_shortfalls())
    assert UNCONFINED not in tuple(limits.shortfalls(container))
