"""ENIs as EC2 describes them."""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.ec2.tags import read_tags
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.model import Eni
from fargate_agent.controlplane.state.networks import GroupRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc import IN_USE

BATCH: Final = 500
"""ENIs that are read at once, so that others get their turn in between."""

_STATUSES: Final = {
    "PRECREATED": "pending",
    "CREATED": "pending",
    "ATTACHING": "attaching",
    "DETACHING": "detaching",
}
"""By the status of the attachment; any other is in-use. EC2's model lacks `pending`, which is what
EC2 says of an ENI that is being made."""

_ATTACHMENT_STATUSES: Final = {"ATTACHING": "attaching", "DETACHING": "detaching"}
_ATTACHMENT_ID_DIGITS: Final = 17


async def read_interfaces(
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the ENIs that there are in the order of their ids, those behind `after`.

    `ids`: only these; None: all.
    """
    query = select(Eni).where(IN_USE).order_by(Eni.id)
    if ids is not None:
        query = query.where(Eni.id.in_(ids))
    names = dict((await session.execute(select(GroupRow.id, GroupRow.name))).all())
    while True:
        enis = list(await session.scalars(query.where(Eni.id > after).limit(BATCH)))
        tags = await read_tags(session, [eni.id for eni in enis])
        for eni in enis:
            yield render_interface(plane, eni, names, tags[eni.id])
        if len(enis) < BATCH:
            return
        after = enis[-1].id
        session.expunge_all()


def render_interface(plane: Plane, eni: Eni, names: Mapping[str, str], tags: list[Json]) -> Json:
    """Return an ENI as DescribeNetworkInterfaces answers it; `names` are those of the groups."""
    account = plane.settings.account
    shown: Json = {
        "AvailabilityZone": eni.availability_zone or f"{plane.settings.region}a",
        "Description": plane.arns.attachment(eni.attachment_id),
        "Groups": [
            {"GroupId": group, "GroupName": names.get(group, group)}
            for group in eni.security_groups
        ],
        "InterfaceType": "interface",
        "Ipv6Addresses": [{"Ipv6Address": eni.ipv6_address}] if eni.ipv6_address else [],
        "MacAddress": eni.mac,
        "NetworkInterfaceId": eni.id,
        "OwnerId": account,
        "PrivateDnsName": eni.private_dns_name,
        "PrivateIpAddress": eni.address,
        "PrivateIpAddresses": [
            {
                "Primary": True,
                "PrivateDnsName": eni.private_dns_name,
                "PrivateIpAddress": eni.address,
            }
        ],
        "RequesterId": account,
        "RequesterManaged": True,
        "SourceDestCheck": True,
        "Status": _STATUSES.get(eni.status, "in-use"),
        "SubnetId": eni.subnet_id,
        "TagSet": tags,
        "VpcId": eni.vpc_id or plane.settings.vpc_id,
    }
    if eni.ipv6_address:
        shown["Ipv6Address"] = eni.ipv6_address
    if shown["Status"] != "pending":
        shown["Attachment"] = _render_attachment(eni, account)
    return shown


def _render_attachment(eni: Eni, account: str) -> Json:
    digits = eni.attachment_id.replace("-", "")[:_ATTACHMENT_ID_DIGITS]
    return {
        "AttachTime": eni.created_at,
        "AttachmentId": f"eni-attach-{digits}",
        "DeleteOnTermination": False,
        "DeviceIndex": 1,
        "InstanceOwnerId": account,
        "NetworkCardIndex": 0,
        "Status": _ATTACHMENT_STATUSES.get(eni.status, "attached"),
    }
