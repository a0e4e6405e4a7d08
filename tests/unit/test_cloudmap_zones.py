"""The DNS records that agents are told, from the rows of Cloud Map."""

import json
import logging
from typing import Any

import pytest

from fargate_agent.controlplane.cloudmap.members import Instance
from fargate_agent.controlplane.cloudmap.zones import MAX_VALUES, render_zones
from fargate_agent.controlplane.state.discovery import DiscoveryServiceRow, NamespaceRow
from fargate_agent.wire.messages import VpcNamesMessage, parse_frame, render_frame

HEALTH = {"HealthCheckCustomConfig": {"FailureThreshold": 1}}


def a_namespace(id_: str = "ns-1", name: str = "corp.internal", vpc: str = "vpc-1") -> NamespaceRow:
    return NamespaceRow(id=id_, name=name, kind="DNS_PRIVATE", vpc_id=vpc)


def a_service(*types: str, name: str = "Web", namespace: str = "ns-1") -> DiscoveryServiceRow:
    records = [{"Type": type_, "TTL": 7} for type_ in types]
    document = {"DnsConfig": {"DnsRecords": records}, **HEALTH}
    return DiscoveryServiceRow(
        id=f"srv-{name}", namespace_id=namespace, name=name, key=name.lower(), document=document
    )


def an_instance(
    id_: str, attributes: dict[str, str], *, healthy: bool = True, service: str = "srv-Web"
) -> Instance:
    return Instance(
        service_id=service,
        id=id_,
        attributes=attributes,
        creator_request_id=None,
        is_healthy=healthy,
        is_task=False,
    )


def at(number: int) -> dict[str, str]:
    return {"AWS_INSTANCE_IPV4": f"10.0.0.{number}", "AWS_INSTANCE_IPV6": f"fd00::{number:x}"}


def render(*types: str, instances: list[Instance], **more: Any) -> dict[tuple[str, str], list[str]]:
    """Return the values of every name and type."""
    made = render_zones([a_namespace()], [a_service(*types)], instances, **more)
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


def test_answer_has_at_most_eight_values() -> None:
    many = [an_instance(str(number), at(number)) for number in range(20)]

    assert len(render("A", instances=many)["web.corp.internal", "A"]) == MAX_VALUES


def test_srv_records_bring_the_names_that_they_lead_to() -> None:
    one = an_instance("Task1", {"AWS_INSTANCE_PORT": "8080", **at(1)})

    assert render("SRV", instances=[one, an_instance("no-port", at(2))]) == {
        ("web.corp.internal", "SRV"): ["1 1 8080 task1.web.corp.internal"],
        ("task1.web.corp.internal", "A"): ["10.0.0.1"],
        ("task1.web.corp.internal", "AAAA"): ["fd00::1"],
    }


def test_name_that_stands_for_another_has_one_value() -> None:
    both = [an_instance(n, {"AWS_INSTANCE_CNAME": f"{n}.example.com"}) for n in ("a", "b")]

    assert render("CNAME", instances=both) == {("web.corp.internal", "CNAME"): ["a.example.com"]}


def test_each_vpc_has_its_own_zones() -> None:
    namespaces = [a_namespace(), a_namespace("ns-2", "other", "vpc-2"), a_namespace("ns-3", "z")]
    service = a_service("A", namespace="ns-2")

    made = render_zones(namespaces, [service], [an_instance("a", at(1))])

    assert [(vpc.vpc_id, [zone.name for zone in vpc.zones]) for vpc in made] == [
        ("vpc-1", ["corp.internal", "z"]),
        ("vpc-2", ["other"]),
    ]
    assert made[1].zones[0].records[0].ttl_s == 7


def test_zone_that_no_message_can_hold_is_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    small = render_zones([a_namespace("ns-2", "z")], [], [])
    size = len(json.dumps(small[0].zones[0].model_dump(mode="json", by_alias=True)))
    with caplog.at_level(logging.ERROR):
        made = render_zones(
            [a_namespace(), a_namespace("ns-2", "z")],
            [a_service("A")],
            [an_instance("a", at(1))],
            max_bytes=size,
        )

    assert made == small
    assert "namespace corp.internal: not sent" in caplog.text


def test_record_that_can_not_be_one_is_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = an_instance("a" * 300, {"AWS_INSTANCE_PORT": "80", **at(1)})
    with caplog.at_level(logging.ERROR):
        found = render("A", "SRV", instances=[one])

    assert ("web.corp.internal", "A") in found
    assert "not sent" in caplog.text


def test_message_travels_as_it_is() -> None:
    vpcs = render_zones([a_namespace()], [a_service("A")], [an_instance("a", at(1))])
    message = VpcNamesMessage(
        message_id="m", cluster_arn="c", container_instance_arn="i", vpcs=vpcs
    )

    assert parse_frame(render_frame(message)) == message
