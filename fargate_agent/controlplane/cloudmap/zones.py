"""The DNS records of private namespaces, as agents are told them.

What they say follows from the tables alone. The version of the namespaces moves on in each
transaction that may change it, and `NAMES` is announced.

Source: Cloud Map API reference, DnsRecord and DnsConfig.RoutingPolicy.
"""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.cloudmap.instances import CNAME, IPV4, IPV6, PORT
from fargate_agent.controlplane.cloudmap.members import Instance, read_instances
from fargate_agent.controlplane.cloudmap.namespaces import PRIVATE
from fargate_agent.controlplane.state.discovery import DiscoveryServiceRow, NamespaceRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import Store
from fargate_agent.wire.vpc_names import NameRecord, PrivateZone, VpcZones

log = logging.getLogger(__name__)

MAX_VALUES: Final = 8
"""Of one name and type. Source: Cloud Map API reference, DnsConfig.RoutingPolicy."""
MAX_ZONES_BYTES: Final = 3 * 1024 * 1024
"""Agents read messages of at most 4 MiB: the limit of aiohttp's websockets."""


class Zones:
    """The zones of all VPCs, made once for all agents of this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._versions: dict[str, int] | None = None
        """Of the namespaces that the zones are made from."""
        self._made: tuple[VpcZones, ...] = ()
        self._turn = asyncio.Lock()
        """Many agents are told at the same time; one of them makes the zones."""

    async def read(self) -> tuple[VpcZones, ...]:
        """Return the zones as they are now.

        Raises:
            SQLAlchemyError: the database can't be read.
        """
        async with self._turn, self._store.read() as session:
            chosen = select(NamespaceRow.id, NamespaceRow.version)
            versions = dict((await session.execute(chosen)).all())
            if versions != self._versions:
                self._made = await _make(session)
                self._versions = versions
        return self._made


async def _make(session: Session) -> tuple[VpcZones, ...]:
    namespaces = (
        await session.scalars(select(NamespaceRow).where(NamespaceRow.kind == PRIVATE))
    ).all()
    services = (await session.scalars(select(DiscoveryServiceRow))).all()
    return render_zones(namespaces, services, await read_instances(session))


def render_zones(
    namespaces: Sequence[NamespaceRow],
    services: Iterable[DiscoveryServiceRow],
    instances: Iterable[Instance],
    max_bytes: int = MAX_ZONES_BYTES,
) -> tuple[VpcZones, ...]:
    """Return the zones of each VPC; what can't be sent is left out, and the log says so. Pure."""
    of_namespace: dict[str, list[DiscoveryServiceRow]] = defaultdict(list)
    of_service: dict[str, list[Instance]] = defaultdict(list)
    for service in services:
        of_namespace[service.namespace_id].append(service)
    for instance in instances:
        of_service[instance.service_id].append(instance)
    zones: dict[str, list[PrivateZone]] = defaultdict(list)
    left_bytes = max_bytes
    for namespace in sorted(namespaces, key=lambda one: (one.vpc_id or "", one.name)):
        zone = _render_zone(namespace, of_namespace[namespace.id], of_service)
        size_bytes = len(json.dumps(zone.model_dump(mode="json", by_alias=True)))
        if size_bytes > left_bytes:
            log.error("namespace %s: not sent: its records are too many", namespace.name)
            continue
        left_bytes -= size_bytes
        zones[namespace.vpc_id or ""].append(zone)
    return tuple(VpcZones(vpc_id=id_, zones=tuple(of_vpc)) for id_, of_vpc in zones.items())


def _render_zone(
    namespace: NamespaceRow,
    services: Iterable[DiscoveryServiceRow],
    of_service: Mapping[str, Sequence[Instance]],
) -> PrivateZone:
    records: list[NameRecord] = []
    for service in sorted(services, key=lambda one: one.key):
        config = service.document.get("DnsConfig")
        if config is None:
            continue
        name = f"{service.key}.{namespace.name}"
        chosen = _choose(service, of_service.get(service.id, ()))
        for record in config["DnsRecords"]:
            records.extend(_render_records(name, record["Type"], record["TTL"], chosen))
    return PrivateZone(name=namespace.name, records=tuple(records))


def _choose(service: DiscoveryServiceRow, instances: Sequence[Instance]) -> Sequence[Instance]:
    """Return the instances that a name means: the healthy ones, or all if none is."""
    if "HealthCheckCustomConfig" not in service.document:
        return instances
    return [instance for instance in instances if instance.is_healthy] or instances


def _render_records(
    name: str, type_: str, ttl_s: int, instances: Sequence[Instance]
) -> Iterator[NameRecord]:
    match type_:
        case "A":
            yield from _render(name, "A", ttl_s, _values(instances, IPV4))
        case "AAAA":
            yield from _render(name, "AAAA", ttl_s, _values(instances, IPV6))
        case "CNAME":
            yield from _render(name, "CNAME", ttl_s, _values(instances, CNAME)[:1])
        case _:
            yield from _render_srv(name, ttl_s, instances)


def _render_srv(name: str, ttl_s: int, instances: Sequence[Instance]) -> Iterator[NameRecord]:
    """Give the record of ports, and those of the names that it leads to."""
    chosen = [instance for instance in instances if PORT in instance.attributes][:MAX_VALUES]
    targets = {f"{instance.id.lower()}.{name}": instance for instance in chosen}
    values = [f"1 1 {one.attributes[PORT]} {target}" for target, one in targets.items()]
    yield from _render(name, "SRV", ttl_s, values)
    for target, instance in targets.items():
        yield from _render(target, "A", ttl_s, _values([instance], IPV4))
        yield from _render(target, "AAAA", ttl_s, _values([instance], IPV6))


def _values(instances: Sequence[Instance], attribute: str) -> list[str]:
    found = [one.attributes[attribute] for one in instances if attribute in one.attributes]
    return list(dict.fromkeys(found))[:MAX_VALUES]


def _render(name: str, type_: str, ttl_s: int, values: Sequence[str]) -> Iterator[NameRecord]:
    """Give the record, if there is a value and it can be one."""
    if not values:
        return
    try:
        yield NameRecord.model_validate(
            {"name": name, "type": type_, "ttl_s": ttl_s, "values": tuple(values)}
        )
    except ValueError as error:
        log.error("record %s %s: not sent: %s", name, type_, error)
