"""Names of private zones as plain data."""

from collections.abc import Iterable
from dataclasses import dataclass

from fargate_agent.wire.names import VpcZones


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPlan:
    """The values of one type that a name has; see `wire.names`."""

    name: str
    type: str
    ttl_s: int
    values: tuple[str, ...]
    most_answers: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ZonePlan:
    """One private zone of a VPC."""

    vpc_id: str
    name: str
    records: tuple[RecordPlan, ...] = ()
    negative_ttl_s: int = 15


def plan_zones(messages: Iterable[VpcZones]) -> tuple[ZonePlan, ...]:
    """Return the zones of a message as plain data."""
    return tuple(
        ZonePlan(
            vpc_id=message.vpc_id,
            name=zone.name,
            records=tuple(
                RecordPlan(
                    name=one.name,
                    type=one.type,
                    ttl_s=one.ttl_s,
                    values=one.values,
                    most_answers=one.most_answers,
                )
                for one in zone.records
            ),
            negative_ttl_s=zone.negative_ttl_s,
        )
        for message in messages
        for zone in message.zones
    )
