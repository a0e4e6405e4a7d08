"""Managed prefix lists: ranges that rules of security groups name together.

Source of limits: Amazon VPC user guide, "Managed prefix lists".
"""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.ec2.changes import Change, invalid_value, missing
from fargate_agent.controlplane.ec2.objects import (
    add_object,
    find_object,
    find_repeated,
    reading,
    remove_object,
    show,
)
from fargate_agent.controlplane.ec2.rules import parse_cidr
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.networks import NetworkObject, RuleRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import note_rules
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc.groups import PREFIX_LIST

MAX_ENTRIES: Final = 1000
FAMILIES: Final = {"IPv4": 4, "IPv6": 6}


async def create_prefix_list(plane: Plane, session: Session, request: Json) -> Json:
    """Make a list of ranges."""
    known = await find_repeated(session, PREFIX_LIST, request)
    if known is not None:
        return {"PrefixList": await show(session, known, render_prefix_list)}
    family, most = request["AddressFamily"], request["MaxEntries"]
    if family not in FAMILIES:
        raise invalid_value(f"Value ({family[:64]}) for parameter addressFamily is invalid.")
    entries = _parse_entries(request.get("Entries", []), family)
    _check_size(entries, most)
    row = await add_object(
        session,
        kind=PREFIX_LIST,
        prefix="pl",
        request=request,
        document={
            "AddressFamily": family,
            "Entries": entries,
            "MaxEntries": most,
            "OwnerId": plane.settings.account,
            "PrefixListName": request["PrefixListName"],
            "State": "create-complete",
            "Version": 1,
        },
    )
    arn = f"arn:aws:ec2:{plane.settings.region}:{plane.settings.account}:prefix-list/{row.id}"
    row.document = {**row.document, "PrefixListArn": arn}
    return {"PrefixList": await show(session, row, render_prefix_list)}


async def modify_prefix_list(plane: Plane, session: Session, request: Json) -> Json:
    """Add entries, take some away, or rename a list; groups whose rules name it change with it."""
    del plane
    row = await _find(session, request["PrefixListId"])
    document = dict(row.document)
    if "CurrentVersion" in request and request["CurrentVersion"] != document["Version"]:
        raise ApiError(
            "PrefixListVersionMismatch",
            f"The prefix list has the version {document['Version']}",
        )
    added = _parse_entries(request.get("AddEntries", []), document["AddressFamily"])
    removed = _parse_entries(request.get("RemoveEntries", []), document["AddressFamily"])
    entries = {entry["Cidr"]: entry for entry in document["Entries"]}
    for entry in removed:
        if entries.pop(entry["Cidr"], None) is None:
            raise invalid_value(f"The CIDR {entry['Cidr']} is not an entry of the prefix list.")
    entries |= {entry["Cidr"]: entry for entry in added}
    most = request.get("MaxEntries", document["MaxEntries"])
    _check_size(list(entries.values()), most)
    document |= {
        "Entries": list(entries.values()),
        "MaxEntries": most,
        "PrefixListName": request.get("PrefixListName", document["PrefixListName"]),
        "State": "modify-complete",
    }
    if added or removed:
        document["Version"] += 1
        named = select(RuleRow.group_id).where(RuleRow.prefix_list == row.id)
        note_rules(session, set(await session.scalars(named)))
    row.document = document
    return {"PrefixList": await show(session, row, render_prefix_list)}


async def delete_prefix_list(plane: Plane, session: Session, request: Json) -> Json:
    """Delete a list that no rule names."""
    del plane
    row = await _find(session, request["PrefixListId"])
    named = select(RuleRow.id).where(RuleRow.prefix_list == row.id)
    if await session.scalar(named.limit(1)) is not None:
        raise ApiError(
            "DependencyViolation",
            f"The prefix list '{row.id}' is named by a security group's rule.",
        )
    shown = await show(session, row, render_prefix_list)
    await remove_object(session, row)
    return {"PrefixList": {**shown, "State": "delete-complete"}}


async def get_prefix_list_entries(plane: Plane, session: Session, request: Json) -> Json:
    """Return the entries of a list; only the newest version is kept."""
    del plane
    row = await _find(session, request["PrefixListId"])
    return {"Entries": row.document["Entries"]}


async def render_prefix_list(session: Session, row: NetworkObject, tags: list[Json]) -> Json:  # noqa: RUF029 - called as those that read
    """Return a list as DescribeManagedPrefixLists and DescribePrefixLists answer it."""
    del session
    cidrs = [entry["Cidr"] for entry in row.document["Entries"]]
    return {**row.document, "PrefixListId": row.id, "Cidrs": cidrs, "Tags": tags}


read_prefix_lists = reading(PREFIX_LIST, render_prefix_list)


async def _find(session: Session, id_: str) -> NetworkObject:
    return await find_object(
        session, PREFIX_LIST, id_, "InvalidPrefixListID.NotFound", "prefix list ID"
    )


def _parse_entries(given: Sequence[Json], family: str) -> list[Json]:
    entries: dict[str, Json] = {}
    for each in given:
        if "Cidr" not in each:
            raise missing("Entry.Cidr")
        cidr = str(ip_network(parse_cidr(each["Cidr"], FAMILIES[family])))
        if cidr in entries:
            raise invalid_value(f"The CIDR {cidr} is there twice.")
        entries[cidr] = {"Cidr": cidr, "Description": each.get("Description", "")}
    return list(entries.values())


def _check_size(entries: Sequence[Json], most: int) -> None:
    if not 1 <= most <= MAX_ENTRIES:
        raise invalid_value(f"maxEntries must be between 1 and {MAX_ENTRIES}.")
    if len(entries) > most:
        raise ApiError(
            "PrefixListMaxEntriesExceeded", f"The prefix list can have at most {most} entries."
        )


CHANGES: Final[dict[str, Change]] = {
    "CreateManagedPrefixList": create_prefix_list,
    "DeleteManagedPrefixList": delete_prefix_list,
    "ModifyManagedPrefixList": modify_prefix_list,
}
