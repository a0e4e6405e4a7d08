"""The VPC of the settings beside what the store has already."""

import logging
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from fargate_agent.controlplane.errors import StartError
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.networks import (
    GroupRow,
    NetworkObject,
    RuleRow,
    SubnetRow,
    VpcRow,
)
from fargate_agent.controlplane.state.store import Store, open_store
from fargate_agent.controlplane.vpc.seeding import PRIVATE_ROUTE_TABLE, ensure_vpc

OFFICE = {
    "id": "sg-web",
    "name": "web",
    "ingress": [{"protocol": "tcp", "from_port": 80, "to_port": 80, "cidrs": ["10.9.0.0/16"]}],
}
HOME = {**OFFICE, "ingress": [{"protocol": "-1", "cidrs": ["192.168.0.0/16"]}]}
LAN = {"id": "subnet-lan", "cidr": "192.168.57.0/24", "kind": "macvlan", "parent": "eth1"}


def settings(**said: Any) -> ControlPlaneSettings:
    return ControlPlaneSettings.model_validate(said)


async def ranges_of(store: Store, group: str) -> list[str | None]:
    chosen = select(RuleRow.cidr).where(RuleRow.group_id == group, ~RuleRow.is_egress)
    async with store.read() as session:
        return list(await session.scalars(chosen))


async def version_of(store: Store, group: str) -> int:
    async with store.read() as session:
        return (await session.get_one(GroupRow, group)).version


@pytest.mark.root
async def test_rules_of_the_settings_are_taken_over_when_they_change(bare_url: str) -> None:
    async with open_store(make_url(bare_url), Announcements()) as store:
        await ensure_vpc(settings(security_groups=[OFFICE]), store)
        first = await version_of(store, "sg-web")
        await ensure_vpc(settings(security_groups=[OFFICE]), store)
        same = await version_of(store, "sg-web")
        await ensure_vpc(settings(security_groups=[HOME]), store)

        assert await ranges_of(store, "sg-web") == ["192.168.0.0/16"]
        assert (same, await version_of(store, "sg-web")) == (first, first + 1)


@pytest.mark.root
async def test_rules_that_the_api_has_changed_stay(
    bare_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(make_url(bare_url), Announcements()) as store:
        await ensure_vpc(settings(security_groups=[OFFICE]), store)
        async with store.write() as session:
            (await session.get_one(GroupRow, "sg-web")).changed = True

        with caplog.at_level(logging.WARNING):
            await ensure_vpc(settings(security_groups=[HOME]), store)

        assert await ranges_of(store, "sg-web") == ["10.9.0.0/16"]
    assert "sg-web: the API has changed its rules" in caplog.text


@pytest.mark.root
async def test_what_has_left_the_settings_is_gone_but_for_a_group_that_is_named(
    bare_url: str,
) -> None:
    pair = {"protocol": "-1", "groups": ["sg-web"]}
    names_it = {"id": "sg-db", "ingress": [pair]}
    async with open_store(make_url(bare_url), Announcements()) as store:
        await ensure_vpc(
            settings(security_groups=[OFFICE, {"id": "sg-old"}, names_it], subnets=[LAN]), store
        )
        async with store.write() as session:
            (await session.get_one(GroupRow, "sg-db")).changed = True
        await ensure_vpc(settings(), store)

        async with store.read() as session:
            groups = {row.id: row.from_settings for row in await session.scalars(select(GroupRow))}
            subnets = list(await session.scalars(select(SubnetRow.id)))
            vpc = await session.get_one(VpcRow, "vpc-default")

    assert groups == {"sg-default": True, "sg-web": False, "sg-db": False}
    assert subnets == ["subnet-default"]
    assert vpc.cidr_blocks == ["10.0.0.0/16"]


@pytest.mark.root
async def test_vpc_of_the_settings_may_get_another_name(bare_url: str) -> None:
    async with open_store(make_url(bare_url), Announcements()) as store:
        await ensure_vpc(settings(), store)
        await ensure_vpc(settings(vpc_id="vpc-mine"), store)

        async with store.read() as session:
            vpcs = list(await session.scalars(select(VpcRow.id)))
            group = await session.get_one(GroupRow, "sg-default")

    assert (vpcs, group.vpc_id) == (["vpc-mine"], "vpc-mine")


@pytest.mark.root
@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        pytest.param(
            {"vpc_cidr": "10.7.0.0/16"}, "10.7.0.0/16 overlaps 10.7.0.0/20 of vpc-api", id="VPC"
        ),
        pytest.param(
            {"subnets": [{"id": "subnet-b", "cidr": "10.0.16.0/24"}]},
            "subnet subnet-b: 10.0.16.0/24 overlaps 10.0.16.0/20 of subnet-api",
            id="subnet",
        ),
        pytest.param(
            {"security_groups": [{"id": "sg-b", "name": "api"}]},
            "its name api is that of sg-api",
            id="group",
        ),
    ],
)
async def test_settings_that_contradict_what_the_api_has_made_are_refused(
    bare_url: str, said: dict[str, Any], complaint: str
) -> None:
    async with open_store(make_url(bare_url), Announcements()) as store:
        await ensure_vpc(settings(), store)
        async with store.write() as session:
            session.add(
                VpcRow(
                    id="vpc-api",
                    cidr_blocks=["10.7.0.0/20"],
                    ipv6_cidr_blocks=[],
                    default_group="sg-other",
                    from_settings=False,
                    attributes={},
                    created_at=0,
                )
            )
            subnet = {
                "vpc_id": "vpc-default",
                "cidr": "10.0.16.0/20",
                "kind": "veth",
                "gateway": "10.0.16.1",
                "mtu": 1500,
                "dns": [],
                "availability_zone": "us-east-1a",
            }
            session.add(
                SubnetRow(
                    id="subnet-api", from_settings=False, attributes={}, created_at=0, **subnet
                )
            )
            session.add(
                GroupRow(
                    id="sg-api",
                    vpc_id="vpc-default",
                    name="api",
                    description="",
                    from_settings=False,
                    created_at=0,
                )
            )

        with pytest.raises(StartError, match=complaint):
            await ensure_vpc(settings(**said), store)


@pytest.mark.root
async def test_names_of_groups_may_move(bare_url: str) -> None:
    """From one id to another, and between two that stay."""
    one, other = {"id": "sg-a", "name": "a"}, {"id": "sg-b", "name": "b"}
    async with open_store(make_url(bare_url), Announcements()) as store:
        await ensure_vpc(settings(security_groups=[one, other]), store)
        swapped = [{**one, "name": "b"}, {**other, "name": "a"}]
        await ensure_vpc(settings(security_groups=swapped), store)
        await ensure_vpc(settings(security_groups=[{"id": "sg-c", "name": "a"}]), store)

        async with store.read() as session:
            rows = await session.scalars(select(GroupRow).where(GroupRow.id != "sg-default"))
            assert {row.id: row.name for row in rows} == {"sg-c": "a"}


@pytest.mark.root
async def test_private_subnets_are_in_a_route_table_without_a_way_out(bare_url: str) -> None:
    private = {"id": "subnet-private", "cidr": "10.0.64.0/24", "nat": False}

    async def read(store: Store) -> tuple[list[str], bool | None]:
        async with store.read() as session:
            table = await session.get(NetworkObject, PRIVATE_ROUTE_TABLE)
            row = await session.get(SubnetRow, "subnet-private")
        document = {"Associations": [], "Routes": []} if table is None else table.document
        assert document["Routes"] == []
        return [
            one["SubnetId"] for one in document["Associations"]
        ], None if row is None else row.nat

    async with open_store(make_url(bare_url), Announcements()) as store:
        found = []
        for subnets in ([], [private], [private], [{**private, "nat": True}]):
            await ensure_vpc(settings(subnets=subnets), store)
            found.append(await read(store))

    assert found == [
        ([], None),
        (["subnet-private"], False),
        (["subnet-private"], False),
        ([], True),
    ]
