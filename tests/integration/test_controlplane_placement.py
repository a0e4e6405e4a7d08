"""Tasks go only where an agent says that it can do what they need."""

import asyncio
from typing import Any

import pytest

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import StartControlPlane
from tests.fixtures.ecs import APP, FARGATE, NO_CAPACITY, reasons, run

pytestmark = pytest.mark.timeout(60)

X86 = {"name": "ecs.cpu-architecture", "value": "x86_64"}
TASK_ENI = {"name": "ecs.capability.task-eni"}
BASE = [TASK_ENI, X86]
LOGGED = {
    "name": "app",
    "image": "busybox",
    "logConfiguration": {
        "logDriver": "awslogs",
        "options": {
            "awslogs-region": "us-east-1",
            "awslogs-group": "g",
            "awslogs-stream-prefix": "p",
        },
    },
}
ROLE = "arn:aws:iam::000000000000:role/x"
ARM = {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"}
CNI = {"id": "subnet-cni", "cidr": "10.88.0.0/24", "kind": "cni", "network": "tasks"}
LAN = {
    "id": "subnet-lan",
    "cidr": "10.9.0.0/24",
    "gateway": "10.9.0.1",
    "kind": "macvlan",
    "parent": "nic7",
}
NICS = {
    "id": "subnet-nics",
    "cidr": "10.10.0.0/24",
    "kind": "nic",
    "nics": ["52:54:00:00:00:01", "52:54:00:00:00:02"],
}
TRUNK = {
    "id": "subnet-trunk",
    "cidr": "10.11.0.0/24",
    "kind": "vlan",
    "trunk": "nic7",
    "vlan_ids": "100-101",
}
INIT = {"linuxParameters": {"initProcessEnabled": True}}
SYSCTL = {"namespace": "net.core.somaxconn", "value": "64"}
ROOM = [{"name": "CPU", "type": "INTEGER", "integerValue": 256}]
"""For one task of `FARGATE`."""
SIX = {"id": "subnet-six", "cidr": "10.0.32.0/24", "ipv6_cidr": "fd00:77:0:1::/64"}


def driver(name: str) -> dict[str, str]:
    return {"name": f"com.amazonaws.ecs.capability.logging-driver.{name}"}


def macvlan(nic: str) -> dict[str, str]:
    return {"name": f"fargate.capability.task-eni.macvlan.{nic}"}


def subnets(*ids: str) -> dict[str, Any]:
    return {"awsvpcConfiguration": {"subnets": list(ids)}}


@pytest.mark.parametrize(
    ("definition", "request_", "without", "having", "lacks"),
    [
        pytest.param(
            {"containerDefinitions": [LOGGED], "executionRoleArn": ROLE},
            {},
            [*BASE, driver("json-file")],
            [*BASE, driver("awslogs")],
            "log driver awslogs",
            id="log driver",
        ),
        pytest.param(
            {"runtimePlatform": ARM},
            {},
            BASE,
            [TASK_ENI, {**X86, "value": "arm64"}],
            "architecture ARM64",
            id="architecture",
        ),
        pytest.param(
            {"runtimePlatform": ARM},
            {},
            BASE,
            [*BASE, {"name": "fargate.capability.cpu-emulation.arm64"}],
            "architecture ARM64",
            id="emulated architecture",
        ),
        pytest.param(
            {"containerDefinitions": [{**APP, "healthCheck": {"command": ["CMD", "true"]}}]},
            {},
            BASE,
            [*BASE, {"name": "ecs.capability.container-health-check"}],
            "container health checks",
            id="health check",
        ),
        pytest.param(
            {"containerDefinitions": [{**APP, "interactive": True, **INIT}]},
            {},
            [*BASE, {"name": "fargate.capability.container-stdin"}],
            [
                *BASE,
                {"name": "fargate.capability.container-init"},
                {"name": "fargate.capability.container-stdin"},
            ],
            "inits of containers",
            id="init",
        ),
        pytest.param(
            {"containerDefinitions": [{**APP, "interactive": True}]},
            {},
            BASE,
            [*BASE, {"name": "fargate.capability.container-stdin"}],
            "interactive containers",
            id="interactive",
        ),
        pytest.param(
            {"containerDefinitions": [{**APP, "systemControls": [SYSCTL]}]},
            {},
            BASE,
            [*BASE, {"name": "fargate.capability.container-system-controls"}],
            "systemControls",
            id="systemControls",
        ),
        pytest.param(
            {"pidMode": "task"},
            {},
            BASE,
            [*BASE, {"name": "ecs.capability.pid-ipc-namespace-sharing"}],
            "PID namespaces of tasks",
            id="pidMode",
        ),
        pytest.param(
            {"containerDefinitions": [{**APP, "restartPolicy": {"enabled": True}}]},
            {},
            BASE,
            [*BASE, {"name": "ecs.capability.container-restart-policy"}],
            "container restart policies",
            id="restart policy",
        ),
        pytest.param(
            {},
            {"networkConfiguration": subnets("subnet-lan")},
            [*BASE, macvlan("nic8")],
            [*BASE, macvlan("nic7")],
            "network interface nic7",
            id="NIC of the subnet",
        ),
        pytest.param(
            {},
            {"networkConfiguration": subnets("subnet-six")},
            BASE,
            [*BASE, {"name": "fargate.capability.task-eni.ipv6"}],
            "IPv6",
            id="IPv6",
        ),
    ],
)
async def test_task_is_placed_only_where_all_it_needs_is_there(
    start_control_plane: StartControlPlane,
    definition: dict[str, Any],
    request_: dict[str, Any],
    without: list[dict[str, str]],
    having: list[dict[str, str]],
    lacks: str,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, subnets=[LAN, SIX])
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **{**FARGATE, **definition})
    unable, able = SimulatedAgent(plane), SimulatedAgent(plane)
    await unable.register(attributes=without)
    await unable.connect()

    refused = await asyncio.to_thread(run, ecs, **request_)
    await able.register(attributes=having)
    await able.connect()
    made = (await asyncio.to_thread(run, ecs, **request_))["tasks"][0]["taskArn"]
    taken = await able.take()
    for agent in (unable, able):
        await agent.disconnect()

    assert reasons(refused) == [NO_CAPACITY]
    unable_id = unable.instance_arn[-32:]
    assert refused["failures"][0]["detail"].endswith(f": agent {unable_id}: lacks {lacks}.")
    assert taken["arn"] == made


async def test_task_goes_into_that_of_its_subnets_which_an_agent_has(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, subnets=[LAN])
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    agent = SimulatedAgent(plane)
    await agent.register(attributes=BASE)
    await agent.connect()

    await asyncio.to_thread(run, ecs, networkConfiguration=subnets("subnet-lan", "subnet-default"))
    taken = await agent.take()
    await agent.disconnect()

    assert taken["elasticNetworkInterfaces"][0]["interfaceAssociationProtocol"] == "veth"


async def test_tasks_for_which_the_first_subnet_has_no_room_go_into_the_next(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, subnets=[LAN], overcommit=False)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    with_nic, without = SimulatedAgent(plane), SimulatedAgent(plane)
    for agent, attributes in ((with_nic, [*BASE, macvlan("nic7")]), (without, BASE)):
        await agent.register(attributes=attributes, totalResources=ROOM)
        await agent.connect()

    both = {"networkConfiguration": subnets("subnet-lan", "subnet-default")}
    made = await asyncio.to_thread(run, ecs, count=3, **both)
    taken = [(await agent.take())["elasticNetworkInterfaces"][0] for agent in (with_nic, without)]
    for agent in (with_nic, without):
        await agent.disconnect()

    assert [eni["interfaceAssociationProtocol"] for eni in taken] == ["macvlan", "veth"]
    assert len(made["tasks"]) == 2
    assert reasons(made) == [NO_CAPACITY]


async def test_task_in_a_cni_subnet_is_placed_where_its_network_is(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, subnets=[CNI])
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    without, having = SimulatedAgent(plane), SimulatedAgent(plane)
    network = {"name": "fargate.capability.task-eni.cni.tasks"}
    for agent, attributes in ((without, BASE), (having, [*BASE, network])):
        await agent.register(attributes=attributes)
        await agent.connect()

    await asyncio.to_thread(run, ecs, networkConfiguration=subnets("subnet-cni"))
    (eni,) = (await having.take())["elasticNetworkInterfaces"]
    for agent in (without, having):
        await agent.disconnect()

    assert eni["interfaceAssociationProtocol"] == "cni"
    assert eni["interfaceCniProperties"] == {"network": "tasks"}


async def test_agent_that_can_do_more_since_it_registered_gets_the_task(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, subnets=[LAN])
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    agent = SimulatedAgent(plane)
    await agent.register(attributes=BASE)
    await agent.connect()
    before = await asyncio.to_thread(run, ecs, networkConfiguration=subnets("subnet-lan"))

    await agent.register(attributes=[*BASE, macvlan("nic7")])
    after = await asyncio.to_thread(run, ecs, networkConfiguration=subnets("subnet-lan"))
    await agent.disconnect()

    assert reasons(before) == [NO_CAPACITY]
    assert len(after["tasks"]) == 1


async def test_each_task_has_a_nic_of_its_agent_as_long_as_one_is_free(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, subnets=[NICS])
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    agents = {}
    for number in (2, 1):
        name = f"fargate.capability.task-eni.nic.52-54-00-00-00-0{number}"
        agents[number] = SimulatedAgent(plane)
        await agents[number].register(attributes=[*BASE, {"name": name}])
        await agents[number].connect()

    network = {"networkConfiguration": subnets("subnet-nics")}
    made = await asyncio.to_thread(run, ecs, count=3, **network)
    taken = {number: await agent.take() for number, agent in agents.items()}
    for agent in agents.values():
        await agent.disconnect()

    assert len(made["tasks"]) == 2
    assert reasons(made) == ["RESOURCE:ENI"]
    for number, task in taken.items():
        (eni,) = task["elasticNetworkInterfaces"]
        assert eni["interfaceAssociationProtocol"] == "nic"
        assert eni["macAddress"] == f"52:54:00:00:00:0{number}"


async def test_each_task_has_a_vlan_of_its_own_as_long_as_one_is_free(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, subnets=[TRUNK])
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    agent = SimulatedAgent(plane)
    await agent.register(attributes=[*BASE, {"name": "fargate.capability.task-eni.vlan.nic7"}])
    await agent.connect()

    network = {"networkConfiguration": subnets("subnet-trunk")}
    made = await asyncio.to_thread(run, ecs, count=3, **network)
    taken = [(await agent.take())["elasticNetworkInterfaces"][0] for _ in made["tasks"]]
    await agent.disconnect()

    assert reasons(made) == ["RESOURCE:ENI"]
    assert {eni["interfaceAssociationProtocol"] for eni in taken} == {"vlan"}
    properties = sorted(eni["interfaceVlanProperties"]["vlanId"] for eni in taken)
    assert properties == ["100", "101"]
    assert {eni["interfaceVlanProperties"]["trunkInterface"] for eni in taken} == {"nic7"}
