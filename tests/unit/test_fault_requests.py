"""What the metadata endpoint says to requests for faults, and what it makes of them."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers.faults import (
    BlackHole,
    FaultInjector,
    Impairment,
    Latency,
    Loss,
    Network,
    Traffic,
    Transport,
)
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.tmds.answers import Answer
from fargate_agent.tmds.faults import Faults
from tests.messages import container_json, site, task_message

HOLE = {"Port": 80, "Protocol": "tcp", "TrafficType": "egress"}
LATE = {"DelayMilliseconds": 100, "JitterMilliseconds": 0, "Sources": ["10.0.0.0/8"]}
LOST = {"LossPercent": 5, "Sources": ["10.0.0.0/8"]}
PATHS = {"hole": "network-blackhole-port", "late": "network-latency", "lost": "network-packet-loss"}
NO_BODY = "required request body is missing"


@dataclass
class FakeInjector(FaultInjector):
    """Keeps faults in memory."""

    holes: dict[BlackHole, tuple[Network, ...]] = field(default_factory=dict)
    impairment: Impairment | None = None
    where: set[tuple[Path, str]] = field(default_factory=set)
    repairs: int = 0
    error: str = ""
    held: asyncio.Event | None = None
    """What `fill` waits for."""
    asked: int = 0

    async def swallow(self, netns: Path, hole: BlackHole, exempt: tuple[Network, ...]) -> None:
        self.holes.setdefault(hole, exempt)

    async def fill(self, netns: Path, hole: BlackHole) -> None:
        self.asked += 1
        if self.held is not None:
            await self.held.wait()
        self.holes.pop(hole, None)

    async def swallows(self, netns: Path, hole: BlackHole) -> bool:
        self.asked += 1
        return hole in self.holes

    async def impair(self, netns: Path, ifname: str, impairment: Impairment) -> None:
        if self.error:
            raise ResourceInitializationError(self.error)
        self.where.add((netns, ifname))
        self.impairment = impairment

    async def repair(self, netns: Path, ifname: str) -> None:
        self.repairs += 1
        self.impairment = None

    async def find_impairment(self, netns: Path, ifname: str) -> type[Latency | Loss] | None:
        return None if self.impairment is None else type(self.impairment.effect)


@pytest.fixture
def injector() -> FakeInjector:
    return FakeInjector()


@pytest.fixture
def faults(injector: FakeInjector) -> Faults:
    return Faults(injector)


@pytest.fixture
def task() -> TaskPlan:
    message = task_message(container_json("web"), enableFaultInjection=True)
    return plan_task(message, site(Path("/state")))


async def ask(
    faults: Faults, task: TaskPlan | None, fault: str, action: str, body: object = ""
) -> tuple[int, dict[str, str]]:
    text = body if isinstance(body, str) else json.dumps(body)
    path = f"/api/id/fault/v1/{PATHS[fault]}/{action}"
    answer: Answer = await faults.answer(task, "id", path, text.encode())
    return answer.status, json.loads(answer.body)


def without(members: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}


@pytest.mark.parametrize(
    ("fault", "body", "text"),
    [
        *(pytest.param(fault, "", NO_BODY, id=f"{fault}: no body") for fault in PATHS),
        *(pytest.param(fault, " \n", NO_BODY, id=f"{fault}: blank") for fault in PATHS),
        pytest.param("hole", "{", "the request body is not valid JSON", id="half an object"),
        pytest.param("late", "[]", "the request body is not a JSON object", id="list"),
        *(
            pytest.param(
                "hole", without(HOLE, name), f"required parameter {name} is missing", id=name
            )
            for name in HOLE
        ),
        *(
            pytest.param(
                "late", without(LATE, name), f"required parameter {name} is missing", id=name
            )
            for name in LATE
        ),
        *(
            pytest.param(
                "lost", without(LOST, name), f"required parameter {name} is missing", id=name
            )
            for name in LOST
        ),
        *(
            pytest.param(
                fault,
                {**members, name: value},
                f"invalid value {shown} for parameter {name}",
                id=f"{name} {shown}",
            )
            for fault, members, name, value, shown in [
                ("hole", HOLE, "Port", 65536, "65536"),
                ("hole", HOLE, "Port", 0, "0"),
                ("hole", HOLE, "Port", "80", "80"),
                ("hole", HOLE, "Port", True, "true"),
                ("hole", HOLE, "Port", 80.5, "80.5"),
                ("hole", HOLE, "Protocol", "icmp", "icmp"),
                ("hole", HOLE, "Protocol", "TCP", "TCP"),
                ("hole", HOLE, "TrafficType", "both", "both"),
                ("hole", HOLE, "SourcesToFilter", ["10.0.0.1", "there"], "there"),
                ("hole", HOLE, "SourcesToFilter", "10.0.0.1", "10.0.0.1"),
                ("late", LATE, "DelayMilliseconds", -1, "-1"),
                ("late", LATE, "DelayMilliseconds", 2**63, str(2**63)),
                ("late", LATE, "JitterMilliseconds", "1", "1"),
                ("late", LATE, "Sources", ["10.0.0.0/33"], "10.0.0.0/33"),
                ("late", LATE, "Sources", ["10.0.0.0/255.0.0.0"], "10.0.0.0/255.0.0.0"),
                ("late", LATE, "Sources", ["fe80::1%eth1"], "fe80::1%eth1"),
                ("late", LATE, "Sources", [1], "1"),
                ("late", LATE, "SourcesToFilter", [""], ""),
                ("late", LATE, "FlowsPercent", 0, "0"),
                ("late", LATE, "FlowsPercent", 101, "101"),
                ("lost", LOST, "LossPercent", 0, "0"),
                ("lost", LOST, "LossPercent", 101, "101"),
                ("lost", LOST, "FlowsPercent", 0, "0"),
            ]
        ),
        pytest.param(
            "late",
            {**LATE, "DelayMilliseconds": 0},
            "required either DelayMilliseconds or JitterMilliseconds to be non-zero",
            id="no delay",
        ),
        pytest.param(
            "late", {**LATE, "Sources": []}, "required parameter Sources is missing", id="nobody"
        ),
    ],
)
async def test_wrong_request_is_refused_in_words_of_ecs(
    fault: str, body: object, text: str, faults: Faults, task: TaskPlan, injector: FakeInjector
) -> None:
    assert await ask(faults, task, fault, "start", body) == (400, {"Error": text})
    assert (injector.holes, injector.impairment) == ({}, None)


@pytest.mark.parametrize("action", ["start", "stop", "status"])
async def test_task_that_has_not_asked_for_it_may_have_no_faults(
    action: str, faults: Faults, task: TaskPlan, injector: FakeInjector
) -> None:
    plain = replace(task, may_inject_faults=False)
    text = f"enableFaultInjection is not enabled for task: {task.arn}"

    assert await ask(faults, plain, "hole", action, HOLE) == (400, {"Error": text})
    assert await ask(faults, plain, "lost", action, LOST) == (400, {"Error": text})
    assert await ask(faults, None, "late", action, LATE) == (
        404,
        {"Error": "unable to lookup container: id"},
    )
    assert injector == FakeInjector()


async def test_black_hole_is_started_once_and_stopped_often(
    faults: Faults, task: TaskPlan, injector: FakeInjector
) -> None:
    body = {"port": 443, "PROTOCOL": "udp", "trafficType": "ingress", "SourcesToFilter": ["::1"]}
    before = await ask(faults, task, "hole", "status", body)
    started = [await ask(faults, task, "hole", "start", body) for _ in range(2)]
    holes = dict(injector.holes)
    running = await ask(faults, task, "hole", "status", body)
    other = await ask(faults, task, "hole", "status", HOLE)
    stopped = [await ask(faults, task, "hole", "stop", body) for _ in range(2)]

    assert before == other == (200, {"Status": "not-running"})
    assert started == [(200, {"Status": "running"})] * 2
    hole = BlackHole(port=443, transport=Transport.UDP, traffic=Traffic.INGRESS)
    assert holes == {hole: (ip_network("::1"),)}
    assert hole.name == "ingress-udp-443"
    assert running == (200, {"Status": "running"})
    assert stopped == [(200, {"Status": "stopped"})] * 2
    assert injector.holes == {}


async def test_one_impairment_at_a_time(
    faults: Faults, task: TaskPlan, injector: FakeInjector
) -> None:
    body = {**LATE, "Sources": ["10.1.2.3/8", "fd00::1"], "SourcesToFilter": ["10.9.0.0/16"]}
    started = await ask(faults, task, "late", "start", {**body, "FlowsPercent": 30})
    second = [
        await ask(faults, task, fault, "start", asked)
        for fault, asked in (("late", LATE), ("lost", LOST))
    ]
    statuses = [await ask(faults, task, fault, "status") for fault in ("late", "lost")]
    not_mine = await ask(faults, task, "lost", "stop", "no JSON")

    text = "There is already one network latency fault running"
    assert started == (200, {"Status": "running"})
    assert second == [(409, {"Error": text})] * 2
    assert statuses == [(200, {"Status": "running"}), (200, {"Status": "not-running"})]
    assert not_mine == (200, {"Status": "stopped"})
    assert injector.impairment == Impairment(
        effect=Latency(delay_ms=100, jitter_ms=0),
        destinations=(ip_network("10.0.0.0/8"), ip_network("fd00::1")),
        exempt=(ip_network("10.9.0.0/16"),),
        flows_percent=30,
    )
    assert injector.where == {(task.netns, "eth1")}

    stopped = await ask(faults, task, "late", "stop")
    lost = await ask(faults, task, "lost", "start", LOST)
    again = await ask(faults, task, "late", "start", LATE)

    assert (stopped, lost) == ((200, {"Status": "stopped"}), (200, {"Status": "running"}))
    text = "There is already one network packet loss fault running"
    assert again == (409, {"Error": text})


async def test_stop_removes_what_is_there_in_part(
    faults: Faults, task: TaskPlan, injector: FakeInjector
) -> None:
    assert await ask(faults, task, "late", "stop") == (200, {"Status": "stopped"})
    assert injector.repairs == 1


async def test_what_the_kernel_refuses_is_an_internal_error_with_its_reason(
    faults: Faults, task: TaskPlan, injector: FakeInjector, caplog: pytest.LogCaptureFixture
) -> None:
    injector.error = "the kernel has no sch_netem"

    answer = await ask(faults, task, "late", "start", LATE)

    assert answer == (500, {"Error": "internal error", "Reason": injector.error})
    assert f"task {task.id}: start network-latency: {injector.error}" in caplog.text


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("start", "start network-blackhole-port: request timed out"),
        ("stop", "stop network-blackhole-port: request timed out"),
        ("status", "check status network-blackhole-port: request timed out"),
    ],
)
async def test_request_that_takes_too_long_is_given_up_and_does_not_begin_later(
    action: str, text: str, task: TaskPlan, injector: FakeInjector
) -> None:
    faults, injector.held = Faults(injector, timeout_s=60), asyncio.Event()
    first = asyncio.create_task(ask(faults, task, "hole", "stop", HOLE))
    while not injector.asked:
        await asyncio.sleep(0)
    faults._timeout_s = 0.01

    late = await ask(faults, task, "hole", action, HOLE)
    injector.held.set()

    assert late == (500, {"Error": text})
    assert await first == (200, {"Status": "stopped"})
    assert (injector.holes, injector.asked) == ({}, 1)
