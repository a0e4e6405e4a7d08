"""Network ACLs: each VPC has the default one, which allows everything, and no other."""

from collections.abc import AsyncIterator, Collection

from sqlalchemy import select

from fargate_agent.controlplane.ec2.tags import read_tags
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.networks import SubnetRow, VpcRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

ALLOWED, LAST = 100, 32767
"""Numbers of the entries. Source: Amazon VPC user guide, "Default network ACL"."""


async def read_acls(
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the ACLs in the order of their ids, those behind `after`."""
    del ids
    subnets = (await session.scalars(select(SubnetRow).order_by(SubnetRow.id))).all()
    vpcs = (await session.scalars(select(VpcRow).order_by(VpcRow.id))).all()
    tags = await read_tags(session, [acl_id(vpc.id) for vpc in vpcs])
    for vpc in vpcs:
        id_ = acl_id(vpc.id)
        if id_ > after:
            yield {
                "Associations": [
                    {
                        "NetworkAclAssociationId": f"aclassoc-{row.id.removeprefix('subnet-')}",
                        "NetworkAclId": id_,
                        "SubnetId": row.id,
                    }
                    for row in subnets
                    if row.vpc_id == vpc.id
                ],
                "Entries": _render_entries(has_ipv6=bool(vpc.ipv6_cidr_blocks)),
                "IsDefault": True,
                "NetworkAclId": id_,
                "OwnerId": plane.settings.account,
                "Tags": tags[id_],
                "VpcId": vpc.id,
            }


def acl_id(vpc_id: str) -> str:
    """Return the id of a VPC's only ACL."""
    return vpc_id.replace("vpc-", "acl-", 1)


def _render_entries(*, has_ipv6: bool) -> list[Json]:
    ranges = [("CidrBlock", "0.0.0.0/0", 0), *([("Ipv6CidrBlock", "::/0", 1)] if has_ipv6 else [])]
    return [
        {
            member: cidr,
            "Egress": is_egress,
            "Protocol": "-1",
            "RuleAction": action,
            "RuleNumber": number + offset,
        }
        for is_egress in (True, False)
        for member, cidr, offset in ranges
        for action, number in (("allow", ALLOWED), ("deny", LAST))
    ]
