"""Addresses of tasks, as they are handed out by a control plane that runs."""

import asyncio
import sqlite3
from contextlib import closing
from ipaddress import IPv4Network
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from fargate_agent.controlplane.state.model import Eni
from fargate_agent.controlplane.vpc import IN_USE
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane
from tests.fixtures.ecs import FARGATE

SMALL = {"id": "subnet-small", "cidr": "10.9.0.0/28", "ipv6_cidr": "fd00:9::/64"}
LARGE = {"id": "subnet-large", "cidr": "10.8.0.0/16"}
ROOM = 16 - 5
OLD = 20_000


@pytest.fixture
def plane(start_control_plane: StartControlPlane) -> ControlPlane:
    """A control plane with a small subnet and a large one; it has a task definition `web`."""
    plane = start_control_plane(subnets=[SMALL, LARGE])
    plane.client().register_task_definition(**FARGATE)
    return plane


@pytest.fixture
def plane_with_sqlite(plane: ControlPlane) -> ControlPlane:
    """The same, if its database is a file: PostgreSQL wants a task for each ENI."""
    if not (plane.state_dir / "state.db").exists():
        pytest.skip("looks into SQLite's file")
    return plane


async def run(plane: ControlPlane, *subnets: str, count: int = 1) -> dict[str, Any]:
    """Run tasks; a client for each call, so that calls can be made at the same time."""
    network = {"awsvpcConfiguration": {"subnets": list(subnets)}}
    answer: dict[str, Any] = await asyncio.to_thread(
        lambda: plane.client().run_task(
            taskDefinition="web", launchType="FARGATE", networkConfiguration=network, count=count
        )
    )
    return answer


def fill(plane: ControlPlane, network: IPv4Network, count: int) -> None:
    """Take the first addresses of a subnet, and leave as many old ENIs that have none any more."""
    rows = [
        (f"eni-{used}{number}", *[f"{used}{number}"] * 2, str(network[4 + number]), used)
        for number in range(count)
        for used in (0, 1)
    ]
    with closing(sqlite3.connect(plane.state_dir / "state.db", timeout=10)) as database, database:
        database.executemany(
            "INSERT INTO enis (id, attachment_id, task_id, subnet_id, address, in_use, mac, "
            "private_dns_name, status, created_at, security_groups) "
            "VALUES (?, ?, ?, 'subnet-large', ?, ?, '', '', 'ATTACHED', 0, '[]')",
            rows,
        )


async def test_no_address_is_given_twice_to_tasks_that_start_at_once(plane: ControlPlane) -> None:
    async with SimulatedAgent(plane) as agent, asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(run(plane, "subnet-small", count=4))
        given = [(await agent.take())["elasticNetworkInterfaces"][0] for _ in range(ROOM)]

    addresses = {eni["ipv4Addresses"][0]["privateAddress"] for eni in given}
    assert addresses == {f"10.9.0.{number}" for number in range(4, 15)}


async def test_full_subnet_is_told_and_the_next_one_is_taken(plane: ControlPlane) -> None:
    async with SimulatedAgent(plane) as agent:
        await run(plane, "subnet-small", count=10)
        some = await run(plane, "subnet-small", count=2)
        other = await run(plane, "subnet-small", "subnet-large")
        given = [(await agent.take())["elasticNetworkInterfaces"][0] for _ in range(12)]

    assert (len(some["tasks"]), [f["reason"] for f in some["failures"]]) == (1, ["RESOURCE:ENI"])
    assert other["failures"] == []
    assert given[-1]["ipv4Addresses"][0]["privateAddress"] == "10.8.0.4"


async def test_address_is_given_again_when_the_agent_has_removed_the_eni(
    plane: ControlPlane,
) -> None:
    async with SimulatedAgent(plane) as agent:
        await run(plane, "subnet-small", count=10)
        await run(plane, "subnet-small")
        tasks = [await agent.take() for _ in range(ROOM)]
        gone = tasks[3]
        await asyncio.to_thread(plane.client().stop_task, task=gone["arn"])
        before = await run(plane, "subnet-small")
        assert (await agent.take())["desiredStatus"] == "STOPPED"

        await agent.bring_down(gone, exit_code=0)
        await run(plane, "subnet-small")
        again = await agent.take()

    assert [failure["reason"] for failure in before["failures"]] == ["RESOURCE:ENI"]
    assert (
        again["elasticNetworkInterfaces"][0]["ipv4Addresses"]
        == gone["elasticNetworkInterfaces"][0]["ipv4Addresses"]
    )


async def test_task_in_a_subnet_with_ipv6_has_an_ipv6_address_too(plane: ControlPlane) -> None:
    async with SimulatedAgent(plane) as agent:
        await run(plane, "subnet-small")
        eni = (await agent.take())["elasticNetworkInterfaces"][0]

    assert eni["ipv6Addresses"] == [{"address": "fd00:9::4", "primary": True}]
    assert eni["subnetGatewayIpv6Address"] == "fd00:9::1/64"


async def test_free_address_is_found_behind_many_that_are_taken(
    plane_with_sqlite: ControlPlane,
) -> None:
    plane = plane_with_sqlite
    await asyncio.to_thread(fill, plane, IPv4Network(LARGE["cidr"]), OLD)

    async with SimulatedAgent(plane) as agent:
        await run(plane, "subnet-large")
        eni = (await agent.take())["elasticNetworkInterfaces"][0]

    assert eni["ipv4Addresses"][0]["privateAddress"] == str(IPv4Network(LARGE["cidr"])[4 + OLD])


def test_addresses_in_use_are_looked_up_in_their_index(plane_with_sqlite: ControlPlane) -> None:
    lookup = select(Eni.address).where(
        Eni.subnet_id == "subnet-a", IN_USE, Eni.address.in_(["10.0.0.4", "10.0.0.5"])
    )
    query = lookup.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})

    with closing(sqlite3.connect(plane_with_sqlite.state_dir / "state.db")) as database:
        (step,) = database.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()

    assert "INDEX enis_address_in_use (subnet_id=? AND address=?)" in step[-1]
