"""The DNS records that agents are told, from the rows of Cloud Map."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from fargate_agent.controlplane.cloudmap import zones
from fargate_agent.controlplane.cloudmap.instances import Instance
from fargate_agent.controlplane.cloudmap.zones import Zones, bound_zones, render_zones
from fargate_agent.controlplane.state.cloudmap import DiscoverableService, Namespace
from fargate_agent.controlplane.state.store import Store
from fargate_agent.parallel import together
from fargate_agent.wire.names import PrivateZone, VpcZones

HEALTH = {"HealthCheckCustomConfig": {"FailureThreshold": 1}}


def a_namespace(id_: str = "ns-1", name: str = "corp.internal", vpc: str = "vpc-1") -> Namespace:
    document = {"Properties": {"DnsProperties": {"SOA": {"TTL": 60}}}}
    return Namespace(id=id_, name=name, kind="DNS_PRIVATE", vpc_id=vpc, document=document)


def a_service(*types: str, namespace: str = "ns-1") -> DiscoverableService:
    routing = "WEIGHTED" if "CNAME" in types else "MULTIVALUE"
    config = {
        "RoutingPolicy": routing,
        "DnsRecords": [{"Type": type_, "TTL": 7} for type_ in types],
    }
    document = {"DnsConfig": config, **HEALTH}
    return DiscoverableService(id="srv-1", namespace_id=namespace, name="Web", document=document)


def an_instance(id_: str, attributes: dict[str, str], *, healthy: bool = True) -> Instance:
    return Instance(id=id_, attributes=attributes, is_healthy=healthy)


def at(number: int) -> dict[str, str]:
    return {"AWS_INSTANCE_IPV4": f"10.0.0.{number}", "AWS_INSTANCE_IPV6": f"fd00::{number:x}"}


def render(*types: str, instances: list[Instance]) -> dict[tuple[str, str], list[str]]:
    """Return the values of every name and type."""
    made = render_zones([a_namespace()], [a_service(*types)], {"srv-1": instances})
    return {
        (record.name, record.type): list(record.values)
        for vpc in made
        for zone in vpc.zones
        for record in zone.records
    }


def test_name_has_the_addresses_of_both_kinds_that_instances_have() -> None:
    four = an_instance("b", {"AWS_INSTANCE_IPV4": "10.0.0.9"})

    assert render("A", "AAAA", instances=[an_instance("a", at(1)), four]) == {
        ("web.corp.internal", "A"): ["10.0.0.1", "10.0.0.9"],
        ("web.corp.internal", "AAAA"): ["fd00::1"],
    }


def test_unhealthy_instances_are_left_out_unless_all_are_unhealthy() -> None:
    well, ill = an_instance("a", at(1)), an_instance("b", at(2), healthy=False)

    assert render("A", instances=[well, ill]) == {("web.corp.internal", "A"): ["10.0.0.1"]}
    assert render("A", instances=[ill]) == {("web.corp.internal", "A"): ["10.0.0.2"]}
    assert render("A", instances=[]) == {}


def test_srv_records_bring_the_names_that_they_lead_to() -> None:
    one = an_instance("Task1", {"AWS_INSTANCE_PORT": "8080", **at(1)})

    assert render("SRV", instances=[one]) == {
        ("web.corp.internal", "SRV"): ["1 1 8080 task1.web.corp.internal"],
        ("task1.web.corp.internal", "A"): ["10.0.0.1"],
        ("task1.web.corp.internal", "AAAA"): ["fd00::1"],
    }


def test_name_that_stands_for_another_has_one_value() -> None:
    both = [an_instance(n, {"AWS_INSTANCE_CNAME": f"{n}.example.com"}) for n in ("a", "b")]

    assert render("CNAME", instances=both) == {("web.corp.internal", "CNAME"): ["a.example.com"]}


def test_each_vpc_has_its_own_zones() -> None:
    namespaces = [a_namespace(), a_namespace("ns-2", "other", "vpc-2"), a_namespace("ns-3", "z")]

    made = render_zones(
        namespaces, [a_service("A", namespace="ns-2")], {"srv-1": [an_instance("a", at(1))]}
    )

    assert [(vpc.vpc_id, [zone.name for zone in vpc.zones]) for vpc in made] == [
        ("vpc-1", ["corp.internal", "z"]),
        ("vpc-2", ["other"]),
    ]
    assert made[1].zones[0].records[0].ttl_s == 7


def test_zone_that_no_message_can_hold_is_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    small = PrivateZone(name="z")
    instances = {"srv-1": [an_instance("a", at(1))]}
    (large,) = render_zones([a_namespace()], [a_service("A")], instances)
    size_bytes = len(json.dumps(small.model_dump(mode="json", by_alias=True)))
    both = VpcZones(vpc_id="vpc-1", zones=(*large.zones, small))
    with caplog.at_level(logging.ERROR):
        kept = bound_zones([both], max_bytes=size_bytes)

    assert kept == (VpcZones(vpc_id="vpc-1", zones=(small,)),)
    assert bound_zones([both]) == (both,)
    assert "vpc-1: zone corp.internal is not sent" in caplog.text


async def test_many_who_ask_at_once_are_told_by_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    async def look(*_: object) -> tuple[VpcZones, ...]:
        looks.append(len(looks))
        await asyncio.sleep(0)
        return (VpcZones(vpc_id=f"vpc-{len(looks)}"),)

    class EmptyStore:
        @asynccontextmanager
        async def read(self) -> Any:
            yield None

    monkeypatch.setattr(zones, "read_zones", look)
    shared, store, told = Zones(), cast(Store, EmptyStore()), []

    async def ask() -> None:
        told.append(await shared.read(store, "us-east-1"))

    await together(ask() for _ in range(10))
    later = await shared.read(store, "us-east-1")

    assert len(looks) <= 3
    assert later == (VpcZones(vpc_id=f"vpc-{len(looks)}"),)
    assert len(told) == 10
