"""The private zones of VPCs, as agents are told them: records of the services of namespaces."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.cloudmap.instances import Instance, read_instances
from fargate_agent.controlplane.state.cloudmap import DiscoverableService, Namespace
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import Store
from fargate_agent.wire.names import NameRecord, PrivateZone, VpcZones

log = logging.getLogger(__name__)

MAX_ZONES_BYTES: Final = 3 * 1024 * 1024
"""Agents take frames of 4 MiB. Source: aiohttp, `ws_connect`, default of `max_msg_size`."""
_LABEL: Final = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?")
_MAX_NAME_CHARS: Final = 253
_ADDRESSES: Final = {"A": "AWS_INSTANCE_IPV4", "AAAA": "AWS_INSTANCE_IPV6"}
_PRIORITY_AND_WEIGHT: Final = "1 1"
"""Source: Cloud Map API, DnsConfig, SRV records."""


def is_label(text: str) -> bool:
    """Whether a text can be one part of a name."""
    return _LABEL.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether a text can be a name of DNS, with or without a dot at its end."""
    name = text.removesuffix(".")
    return len(name) <= _MAX_NAME_CHARS and all(map(is_label, name.split(".")))


class Zones:
    """The private zones of all VPCs, read once for all agents that are to be told of a change."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._asked = 0
        """Counts those who have asked."""
        self._known_at = -1
        """How many had, when what is known was begun to be read."""
        self._known: tuple[VpcZones, ...] = ()

    async def read(self, store: Store, region: str) -> tuple[VpcZones, ...]:
        """Return the zones as they are now, those that fit into a message.

        Raises:
            SQLAlchemyError: the database can't be read.
        """
        self._asked += 1
        mine = self._asked
        async with self._turn:
            if self._known_at < mine:
                asked = self._asked
                async with store.read() as session:
                    self._known = bound_zones(await read_zones(session, region))
                self._known_at = asked
            return self._known


def bound_zones(vpcs: Sequence[VpcZones], max_bytes: int = MAX_ZONES_BYTES) -> tuple[VpcZones, ...]:
    """Return what fits into one message; a zone that doesn't is left out, and the log says so."""
    kept: list[VpcZones] = []
    left_bytes = max_bytes
    for vpc in vpcs:
        zones: list[PrivateZone] = []
        for zone in vpc.zones:
            size_bytes = len(json.dumps(zone.model_dump(mode="json", by_alias=True)))
            if size_bytes > left_bytes:
                log.error("%s: zone %s is not sent: it has too many records", vpc.vpc_id, zone.name)
                continue
            left_bytes -= size_bytes
            zones.append(zone)
        kept.append(VpcZones(vpc_id=vpc.vpc_id, zones=tuple(zones)))
    return tuple(kept)


async def read_zones(session: Session, region: str) -> tuple[VpcZones, ...]:
    """Return the private zones of all VPCs."""
    chosen = select(Namespace).where(Namespace.vpc_id.is_not(None)).order_by(Namespace.id)
    namespaces = (await session.scalars(chosen)).all()
    if not namespaces:
        return ()
    ids = [namespace.id for namespace in namespaces]
    of_them = select(DiscoverableService).where(DiscoverableService.namespace_id.in_(ids))
    services = (await session.scalars(of_them.order_by(DiscoverableService.id))).all()
    instances = await read_instances(session, region, [service.id for service in services])
    return render_zones(namespaces, services, instances)


def render_zones(
    namespaces: Sequence[Namespace],
    services: Sequence[DiscoverableService],
    instances: Mapping[str, Sequence[Instance]],
) -> tuple[VpcZones, ...]:
    """Return the zones of namespaces with a VPC; pure.

    An instance without the attribute that a record is made of has no such record.
    """
    zones: dict[str, list[PrivateZone]] = {}
    for namespace in namespaces:
        records = [
            record
            for service in services
            if service.namespace_id == namespace.id
            for record in _render_service(namespace, service, instances.get(service.id, ()))
        ]
        soa = namespace.document["Properties"]["DnsProperties"].get("SOA", {})
        zone = PrivateZone(
            name=namespace.name, records=tuple(records), negative_ttl_s=soa.get("TTL", 15)
        )
        zones.setdefault(str(namespace.vpc_id), []).append(zone)
    return tuple(VpcZones(vpc_id=vpc, zones=tuple(found)) for vpc, found in zones.items())


def _render_service(
    namespace: Namespace, service: DiscoverableService, instances: Sequence[Instance]
) -> Iterator[NameRecord]:
    """Yield the records of healthy instances; of all if none is. Source: Cloud Map, DnsConfig."""
    config = service.document.get("DnsConfig")
    if config is None or not instances:
        return
    name = f"{service.name}.{namespace.name}".lower()
    counts = "HealthCheckCustomConfig" in service.document
    given = [one for one in instances if one.is_healthy or not counts] or list(instances)
    most = 1 if config["RoutingPolicy"] == "WEIGHTED" else 8
    for record in config["DnsRecords"]:
        kind, ttl_s = record["Type"], record["TTL"]
        values = [value for one in given if (value := _render_value(kind, one, name))]
        if kind == "CNAME":
            values = values[:1]
        if values:
            yield NameRecord(
                name=name, type=kind, ttl_s=ttl_s, values=tuple(values), most_answers=most
            )
        if kind == "SRV":
            yield from _render_targets(name, ttl_s, given)


def _render_value(kind: str, instance: Instance, name: str) -> str | None:
    attributes = instance.attributes
    if kind == "SRV":
        port = attributes.get("AWS_INSTANCE_PORT")
        usable = port is not None and is_label(instance.id)
        return f"{_PRIORITY_AND_WEIGHT} {port} {_target(instance, name)}" if usable else None
    return attributes.get(_ADDRESSES.get(kind, "AWS_INSTANCE_CNAME"))


def _render_targets(name: str, ttl_s: int, instances: Sequence[Instance]) -> Iterator[NameRecord]:
    """Yield the addresses of what SRV records name."""
    for one in instances:
        for kind, attribute in _ADDRESSES.items():
            if attribute in one.attributes and is_label(one.id):
                yield NameRecord(
                    name=_target(one, name),
                    type="A" if kind == "A" else "AAAA",
                    ttl_s=ttl_s,
                    values=(one.attributes[attribute],),
                )


def _target(instance: Instance, name: str) -> str:
    return f"{instance.id}.{name}".lower()
