"""The tables of Cloud Map: what its calls make, and which tasks are instances of its services.

A change here needs a migration in `migrations/versions`.
"""

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fargate_agent.controlplane.state.model import Base


class NamespaceRow(Base):
    """A namespace."""

    __tablename__ = "discovery_namespaces"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    """In lower case where it is a domain."""
    kind: Mapped[str]
    """`DNS_PRIVATE` or `HTTP`."""
    vpc_id: Mapped[str | None]
    """Whose tasks can resolve its names."""
    creator_request_id: Mapped[str | None]
    operation_id: Mapped[str]
    """Of the operation that made it."""
    document: Mapped[dict[str, Any]]
    """Members of the Namespace shape that are kept and shown."""
    tags: Mapped[list[Any]]
    version: Mapped[int] = mapped_column(default=1)
    """Moves on, with that of every other namespace, when what agents are told may have changed."""
    created_at: Mapped[float]


class DiscoveryServiceRow(Base):
    """A service of a namespace: a name that instances are registered under."""

    __tablename__ = "discovery_services"

    id: Mapped[str] = mapped_column(primary_key=True)
    namespace_id: Mapped[str] = mapped_column(ForeignKey("discovery_namespaces.id"))
    name: Mapped[str]
    key: Mapped[str]
    """What no other service of the namespace may have: the name as DNS compares it."""
    creator_request_id: Mapped[str | None]
    document: Mapped[dict[str, Any]]
    """Members of the Service shape that are kept and shown."""
    tags: Mapped[list[Any]]
    created_at: Mapped[float]

    __table_args__ = (Index("discovery_services_by_name", "namespace_id", "key", unique=True),)


class InstanceRow(Base):
    """An instance of a service: registered by a call, or a task that is one while it runs."""

    __tablename__ = "discovery_instances"

    service_id: Mapped[str] = mapped_column(ForeignKey("discovery_services.id"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    task_id: Mapped[str | None] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    creator_request_id: Mapped[str | None]
    health: Mapped[str]
    """As calls say: `HEALTHY` or `UNHEALTHY`."""
    attributes: Mapped[dict[str, Any]]

    __table_args__ = (Index("discovery_instances_of_task", "task_id"),)


class OperationRow(Base):
    """An operation of Cloud Map, which was done in the transaction that wrote it."""

    __tablename__ = "discovery_operations"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    targets: Mapped[dict[str, Any]]
    """Ids by `NAMESPACE`, `SERVICE`, `INSTANCE`."""
    created_at: Mapped[float] = mapped_column(index=True)
