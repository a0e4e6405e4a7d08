"""ARNs and ids of Cloud Map, and the rows that they mean."""

import secrets
import string
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.cloudmap.refusals import namespace_not_found, service_not_found
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.state.discovery import DiscoveryServiceRow, NamespaceRow
from fargate_agent.controlplane.state.session import Session

NAMESPACE: Final = "namespace"
SERVICE: Final = "service"

_ID_CHARS: Final = string.ascii_lowercase + string.digits
_ID_LENGTH: Final = 16
"""Behind `ns-` and `srv-`. Source: Cloud Map API reference, examples."""
_ZONE_LENGTH: Final = 20


def new_namespace_id() -> str:
    """Make the id of a namespace."""
    return f"ns-{_draw(_ID_LENGTH)}"


def new_service_id() -> str:
    """Make the id of a service."""
    return f"srv-{_draw(_ID_LENGTH)}"


def new_zone_id() -> str:
    """Make what stands for the id of a hosted zone, which tools read."""
    return f"Z{_draw(_ZONE_LENGTH).upper()}"


def namespace_arn(arns: Arns, id_: str) -> str:
    """Return the ARN of a namespace."""
    return f"arn:aws:servicediscovery:{arns.region}:{arns.account}:{NAMESPACE}/{id_}"


def service_arn(arns: Arns, id_: str) -> str:
    """Return the ARN of a service."""
    return f"arn:aws:servicediscovery:{arns.region}:{arns.account}:{SERVICE}/{id_}"


async def find_namespace(arns: Arns, session: Session, reference: str) -> NamespaceRow:
    """Return the namespace with an id or ARN.

    Raises:
        ApiError: there is none.
    """
    row = await session.get(NamespaceRow, reference.removeprefix(namespace_arn(arns, "")))
    if row is None:
        raise namespace_not_found(reference)
    return row


async def find_service(arns: Arns, session: Session, reference: str) -> DiscoveryServiceRow:
    """Return the service with an id or ARN.

    Raises:
        ApiError: there is none.
    """
    row = await session.get(DiscoveryServiceRow, reference.removeprefix(service_arn(arns, "")))
    if row is None:
        raise service_not_found(reference)
    return row


async def find_named_service(
    session: Session, namespace_name: str, service_name: str
) -> tuple[NamespaceRow, DiscoveryServiceRow]:
    """Return a service by its name and that of its namespace.

    Raises:
        ApiError: one of them isn't there.
    """
    namespace = await session.scalar(
        select(NamespaceRow).where(NamespaceRow.name.in_([namespace_name, namespace_name.lower()]))
    )
    if namespace is None:
        raise namespace_not_found(namespace_name)
    service = await session.scalar(
        select(DiscoveryServiceRow).where(
            DiscoveryServiceRow.namespace_id == namespace.id,
            DiscoveryServiceRow.key == service_key(namespace, service_name),
        )
    )
    if service is None:
        raise service_not_found(service_name)
    return namespace, service


def service_key(namespace: NamespaceRow, name: str) -> str:
    """Return what no other service of a namespace may have: names of the DNS have no case."""
    return name if namespace.kind == "HTTP" else name.lower()


def _draw(length: int) -> str:
    return "".join(secrets.choice(_ID_CHARS) for _ in range(length))
