"""Availability zones: names that subnets have, and nothing more."""

from collections.abc import AsyncIterator, Collection
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.ec2.changes import invalid_value
from fargate_agent.controlplane.ec2.networks import zone_id
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.networks import SubnetRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

LETTERS: Final = "abc"
"""Of the zones that there are even without a subnet: modules spread theirs over so many."""


async def list_zones(plane: Plane, session: Session) -> list[str]:
    """Return the names of the zones: three of the region, and those that subnets have."""
    named = await session.scalars(select(SubnetRow.availability_zone).distinct())
    return sorted({*named, *(f"{plane.settings.region}{letter}" for letter in LETTERS)})


async def find_zone(plane: Plane, session: Session, request: Json) -> str | None:
    """Return the zone that a request names by name or id; None: it names none.

    Raises:
        ApiError: there is no such zone.
    """
    zones = await list_zones(plane, session)
    for member, names in (
        ("AvailabilityZone", {zone: zone for zone in zones}),
        ("AvailabilityZoneId", {zone_id(zone): zone for zone in zones}),
    ):
        if asked := request.get(member):
            if asked not in names:
                raise invalid_value(
                    f"Value ({asked[:64]}) for parameter {member[:1].lower()}{member[1:]} is"
                    " invalid. Subnets can currently only be created in the following availability"
                    f" zones: {', '.join(names)}."
                )
            return names[asked]
    return None


async def read_zones(
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the zones in the order of their names."""
    del ids
    region = plane.settings.region
    for zone in await list_zones(plane, session):
        if zone > after:
            yield {
                "GroupName": region,
                "Messages": [],
                "NetworkBorderGroup": region,
                "OptInStatus": "opt-in-not-required",
                "RegionName": region,
                "State": "available",
                "ZoneId": zone_id(zone),
                "ZoneName": zone,
                "ZoneType": "availability-zone",
            }
