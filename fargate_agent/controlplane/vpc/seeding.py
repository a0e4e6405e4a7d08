"""The VPC of the settings, written into the store at each start.

What the settings say of subnets and of the VPC holds. The rules of a security group are those of
the settings until a call of the API changes them; from then on the store's hold, whatever the
settings say. What has left the settings is gone, but for a group that something still names: that
one stays, and can be deleted by the API.
"""

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Final

from sqlalchemy import delete, select, update

from fargate_agent.controlplane.errors import StartError
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.model import Eni, EniGroup
from fargate_agent.controlplane.state.networks import (
    GroupRow,
    NetworkObject,
    RuleRow,
    SubnetRow,
    VpcRow,
)
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import Store, note_rules
from fargate_agent.controlplane.vpc.addresses import IN_USE
from fargate_agent.controlplane.vpc.plan import Subnet, plan_cidr_blocks, plan_subnets
from fargate_agent.controlplane.vpc_settings import (
    DEFAULT_SECURITY_GROUP,
    RuleSettings,
    SecurityGroupSettings,
)

log = logging.getLogger(__name__)

ROUTE_TABLE: Final = "route-table"
"""`kind` of the rows of route tables."""
DEFAULT_ROUTE_TABLE: Final = "rtb-default"
PRIVATE_ROUTE_TABLE: Final = "rtb-private"
DEFAULT_GATEWAY: Final = "igw-default"


async def ensure_vpc(settings: ControlPlaneSettings, store: Store) -> None:
    """Have the VPC of the settings in the store.

    Raises:
        StartError: it can't stand beside what calls of the API have made.
    """
    async with store.write() as session:
        await _ensure_vpc(settings, session)
        await _ensure_subnets(settings, session)
        await _ensure_groups(settings, session)
        await _ensure_routes(settings, session)
        await _ensure_private_routes(settings, session)
        former = VpcRow.from_settings, VpcRow.id != settings.vpc_id
        await session.execute(delete(VpcRow).where(*former))


async def _ensure_vpc(settings: ControlPlaneSettings, session: Session) -> None:
    blocks, ipv6_blocks = plan_cidr_blocks(settings)
    whole = [*map(str, blocks)], [*map(str, ipv6_blocks)]
    for other in await session.scalars(select(VpcRow).where(~VpcRow.from_settings)):
        for mine in (*whole[0], *whole[1]):
            for theirs in (*other.cidr_blocks, *other.ipv6_cidr_blocks):
                if _overlap(mine, theirs):
                    raise StartError(
                        f"{settings.vpc_id}: {mine} overlaps {theirs} of {other.id}, which was made"
                        " by CreateVpc: change vpc_cidr, vpc_ipv6_cidr or subnets, or delete that"
                        " VPC first"
                    )
        if other.id == settings.vpc_id:
            raise StartError(f"vpc_id {other.id} is that of a VPC made by CreateVpc")
    row = await session.get(VpcRow, settings.vpc_id)
    if row is None:
        row = VpcRow(id=settings.vpc_id, from_settings=True, attributes={}, created_at=time.time())
        session.add(row)
    row.cidr_blocks, row.ipv6_cidr_blocks = whole
    row.default_group = DEFAULT_SECURITY_GROUP
    await session.flush()
    former = select(VpcRow.id).where(VpcRow.from_settings, VpcRow.id != settings.vpc_id)
    for table in (SubnetRow, GroupRow, NetworkObject, Eni):  # the VPC has another name now
        await session.execute(
            update(table).where(table.vpc_id.in_(former)).values(vpc_id=settings.vpc_id)
        )


async def _ensure_subnets(settings: ControlPlaneSettings, session: Session) -> None:
    wanted = plan_subnets(settings)
    known = {row.id: row for row in await session.scalars(select(SubnetRow))}
    for row in known.values():
        if row.from_settings and row.id not in wanted:
            await session.delete(row)
    await session.flush()
    made = [row for row in known.values() if not row.from_settings]
    for subnet in wanted.values():
        for other in made:
            if subnet.id == other.id:
                raise StartError(f"subnet {other.id} was made by CreateSubnet")
            _check_apart(subnet, other)
        row = known.get(subnet.id) or SubnetRow(
            id=subnet.id, from_settings=True, attributes={}, created_at=time.time()
        )
        session.add(row)
        fill_row(row, subnet)
    await session.flush()
    await _move_enis(session, wanted)


async def _move_enis(session: Session, subnets: Mapping[str, Subnet]) -> None:
    """Have ENIs whose subnet has another name now be in that one, so that nobody gets theirs."""
    left = select(Eni).where(IN_USE, Eni.subnet_id.not_in(select(SubnetRow.id)))
    for eni in await session.scalars(left):
        address = IPv4Address(eni.address)
        found = next((one for one in subnets.values() if address in one.cidr), None)
        if found is not None:
            eni.subnet_id = found.id


def fill_row(row: SubnetRow, subnet: Subnet) -> None:
    """Have a row say what a subnet is."""
    row.vpc_id = subnet.vpc_id
    row.cidr = str(subnet.cidr)
    row.ipv6_cidr = None if subnet.ipv6_cidr is None else str(subnet.ipv6_cidr)
    row.kind = subnet.kind.value
    row.parent = subnet.parent
    row.nics = list(subnet.nics) or None
    ids = subnet.vlan_ids
    row.vlan_ids = f"{ids[0]}-{ids[-1]}" if ids else None
    row.gateway = str(subnet.gateway)
    row.gateway6 = None if subnet.gateway6 is None else str(subnet.gateway6)
    row.mtu = subnet.mtu
    row.nat = subnet.nat
    row.dns = [str(server) for server in subnet.dns]
    row.availability_zone = subnet.availability_zone


def _check_apart(subnet: Subnet, other: SubnetRow) -> None:
    for mine, theirs in ((subnet.cidr, other.cidr), (subnet.ipv6_cidr, other.ipv6_cidr)):
        if mine is not None and theirs is not None and _overlap(str(mine), theirs):
            raise StartError(
                f"subnet {subnet.id}: {mine} overlaps {theirs} of {other.id}, which was made by"
                " CreateSubnet: change one of them"
            )


async def _ensure_groups(settings: ControlPlaneSettings, session: Session) -> None:
    wanted = {group.id: group for group in settings.all_security_groups}
    known = {row.id: row for row in await session.scalars(select(GroupRow))}
    for row in known.values():
        if row.from_settings and row.id not in wanted:
            await _take_out(session, row)
        elif row.id in wanted and row.name != (wanted[row.id].name or row.id):
            row.name = row.id  # so that its name is free for another
    await session.flush()
    kept = await session.scalars(
        select(GroupRow).where(GroupRow.vpc_id == settings.vpc_id, GroupRow.id.not_in(wanted))
    )
    names = {row.name: row.id for row in kept}
    for group in wanted.values():
        name = group.name or group.id
        if name in names:
            raise StartError(
                f"security group {group.id}: its name {name} is that of {names[name]}, which was"
                " made by CreateSecurityGroup or is still in use"
            )
        await _ensure_group(settings, session, known.get(group.id), group)


async def _take_out(session: Session, row: GroupRow) -> None:
    members = select(EniGroup.eni_id).join(Eni).where(EniGroup.group_id == row.id, IN_USE)
    named = select(RuleRow.id).where(RuleRow.source_group == row.id, RuleRow.group_id != row.id)
    in_use = [await session.scalar(query.limit(1)) for query in (members, named)]
    if row.changed or any(found is not None for found in in_use):
        row.from_settings = False
        row.settings_digest = None
    else:
        await session.delete(row)
    await session.flush()


async def _ensure_group(
    settings: ControlPlaneSettings,
    session: Session,
    row: GroupRow | None,
    group: SecurityGroupSettings,
) -> None:
    digest = _digest(group)
    if row is None:
        row = GroupRow(id=group.id, changed=False, version=1, created_at=time.time())
        session.add(row)
    row.vpc_id = settings.vpc_id
    row.name = group.name or group.id
    row.description = group.description or row.name
    row.from_settings = True
    if row.settings_digest == digest:
        return
    row.settings_digest = digest
    if row.changed:
        log.warning(
            "security group %s: the API has changed its rules, so those of the settings don't hold",
            group.id,
        )
        return
    await session.flush()
    await session.execute(delete(RuleRow).where(RuleRow.group_id == group.id))
    sides = ((rule, is_egress) for is_egress in (False, True) for rule in _rules(group, is_egress))
    seen: set[tuple[object, ...]] = set()
    for rule, is_egress in sides:
        sources = [(str(cidr), None) for cidr in rule.cidrs]
        for cidr, source in (*sources, *((None, group_id) for group_id in rule.groups)):
            what = (is_egress, rule.protocol, rule.from_port, rule.to_port, cidr, source)
            if what not in seen:
                seen.add(what)
                session.add(
                    RuleRow(
                        id=new_rule_id(),
                        group_id=group.id,
                        position=len(seen),
                        is_egress=is_egress,
                        protocol=rule.protocol,
                        from_port=rule.from_port,
                        to_port=rule.to_port,
                        cidr=cidr,
                        source_group=source,
                    )
                )
    note_rules(session, [group.id])


async def _ensure_routes(settings: ControlPlaneSettings, session: Session) -> None:
    """Have a main route table that leads out by a gateway, as in a default VPC of AWS."""
    chosen = select(NetworkObject.id).where(
        NetworkObject.kind == ROUTE_TABLE, NetworkObject.vpc_id == settings.vpc_id
    )
    if await session.scalar(chosen.limit(1)) is not None:
        return
    session.add(
        NetworkObject(
            id=DEFAULT_GATEWAY,
            kind="internet-gateway",
            vpc_id=settings.vpc_id,
            document={"OwnerId": settings.account},
            created_at=time.time(),
        )
    )
    table = render_main_table(DEFAULT_ROUTE_TABLE, settings.vpc_id)
    out = {"GatewayId": DEFAULT_GATEWAY, "Origin": "CreateRoute", "State": "active"}
    routes = [{"DestinationCidrBlock": "0.0.0.0/0", **out}]
    table.document = {**table.document, "Routes": routes}
    session.add(table)


async def _ensure_private_routes(settings: ControlPlaneSettings, session: Session) -> None:
    """Have the private subnets in a table without a route out, but for those that calls moved."""
    wanted = [subnet.id for subnet in settings.all_subnets if not subnet.nat]
    tables = {
        row.id: row
        for row in await session.scalars(
            select(NetworkObject).where(
                NetworkObject.kind == ROUTE_TABLE, NetworkObject.vpc_id == settings.vpc_id
            )
        )
    }
    row = tables.pop(PRIVATE_ROUTE_TABLE, None)
    if row is None:
        if not wanted:
            return
        row = NetworkObject(
            id=PRIVATE_ROUTE_TABLE,
            kind=ROUTE_TABLE,
            vpc_id=settings.vpc_id,
            document={"Main": None, "Routes": [], "Associations": []},
            created_at=time.time(),
        )
        session.add(row)
    elsewhere = {one["SubnetId"] for table in tables.values() for one in _associations(table)}
    known = {one["SubnetId"]: one for one in _associations(row)}
    associations = [
        known.get(subnet_id, {"Id": new_association_id(), "SubnetId": subnet_id})
        for subnet_id in wanted
        if subnet_id not in elsewhere
    ]
    row.document = {**row.document, "Associations": associations}


def _associations(table: NetworkObject) -> list[dict[str, str]]:
    found: list[dict[str, str]] = table.document["Associations"]
    return found


def render_main_table(id_: str, vpc_id: str) -> NetworkObject:
    """Return the main route table of a VPC, with no route but those inside it."""
    return NetworkObject(
        id=id_,
        kind=ROUTE_TABLE,
        vpc_id=vpc_id,
        document={"Main": new_association_id(), "Associations": [], "Routes": []},
        created_at=time.time(),
    )


def new_association_id() -> str:
    """Make the id of a route table's association: 17 hex digits."""
    return f"rtbassoc-{secrets.token_hex(9)[:17]}"


def new_rule_id() -> str:
    """Make the id of a security group's rule: 17 hex digits."""
    return f"sgr-{secrets.token_hex(9)[:17]}"


def _rules(group: SecurityGroupSettings, is_egress: bool) -> tuple[RuleSettings, ...]:
    return group.egress if is_egress else group.ingress


def _digest(group: SecurityGroupSettings) -> str:
    rules = group.model_dump(mode="json", include={"ingress", "egress"})
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def _overlap(one: str, other: str) -> bool:
    first, second = ip_network(one), ip_network(other)
    if isinstance(first, IPv4Network):
        return isinstance(second, IPv4Network) and first.overlaps(second)
    return isinstance(second, IPv6Network) and first.overlaps(second)
