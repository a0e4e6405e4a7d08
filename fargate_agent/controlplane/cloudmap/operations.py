"""Operations: what changes in Cloud Map is done when it is answered, and can be asked about.

Source: Cloud Map API reference, Operation.
"""

import time
from typing import Final

from sqlalchemy import delete, select

from fargate_agent.controlplane.cloudmap.filters import check_filters, matches
from fargate_agent.controlplane.cloudmap.lists import render_list
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.names import new_uuid
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.discovery import OperationRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

KEPT_S: Final = 24 * 3600
"""How long an operation can be asked about. Cloud Map names no time."""

_FILTERS: Final = {
    "NAMESPACE_ID": ("EQ", "IN"),
    "SERVICE_ID": ("EQ", "IN"),
    "STATUS": ("EQ", "IN"),
    "TYPE": ("EQ", "IN"),
    "UPDATE_DATE": ("BETWEEN",),
}
"""Source: Cloud Map API reference, OperationFilter."""


async def note_operation(session: Session, kind: str, **targets: str) -> str:
    """Write down that something is done; return the id of the operation.

    Those of long ago are forgotten.
    """
    now = time.time()
    await session.execute(delete(OperationRow).where(OperationRow.created_at < now - KEPT_S))
    row = OperationRow(id=new_uuid(), kind=kind, targets=targets, created_at=round(now, 3))
    session.add(row)
    return row.id


async def get_operation(plane: Plane, call: Call) -> Json:
    """Describe an operation."""
    id_ = call.request["OperationId"]
    async with plane.store.read() as session:
        row = await session.get(OperationRow, id_)
    if row is None:
        raise ApiError("OperationNotFound", f"Could not find operation: {id_[:64]}.")
    return {
        "Operation": {
            "Id": row.id,
            "OwnerAccount": plane.arns.account,
            "Type": row.kind,
            "Status": "SUCCESS",
            "CreateDate": row.created_at,
            "UpdateDate": row.created_at,
            "Targets": row.targets,
        }
    }


async def list_operations(plane: Plane, call: Call) -> Json:
    """List operations, the oldest first."""
    filters = call.request.get("Filters", [])
    check_filters(filters, _FILTERS)
    async with plane.store.read() as session:
        rows = (await session.scalars(select(OperationRow))).all()
    shown = {
        f"{row.created_at:018.3f} {row.id}": {"Id": row.id, "Status": "SUCCESS"}
        for row in rows
        if matches(filters, _values(row))
    }
    return render_list(call.request, shown, "Operations")


def _values(row: OperationRow) -> dict[str, str | float]:
    return {
        "NAMESPACE_ID": row.targets.get("NAMESPACE", ""),
        "SERVICE_ID": row.targets.get("SERVICE", ""),
        "STATUS": "SUCCESS",
        "TYPE": row.kind,
        "UPDATE_DATE": row.created_at,
    }


OPERATIONS: Final[dict[str, Operation]] = {
    "GetOperation": get_operation,
    "ListOperations": list_operations,
}
