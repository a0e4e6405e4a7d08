"""The tables of Cloud Map: namespaces, services in them, and instances that clients register.

Tasks of ECS's services are no rows here: which of them are instances follows from their own rows.
A change here needs a migration in `migrations/versions`.
"""

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fargate_agent.controlplane.state.model import Base


class Namespace(Base):
    """A namespace: of DNS in one VPC, or of HTTP."""

    __tablename__ = "namespaces"

    id: Mapped[str] = mapped_column(primary_key=True)
    """`ns-…`."""
    name: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    """DNS_PRIVATE or HTTP."""
    vpc_id: Mapped[str | None]
    document: Mapped[dict[str, Any]]
    """Members of the Namespace shape that are only kept and shown."""
    tags: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[float]


class DiscoverableService(Base):
    """A service of Cloud Map."""

    __tablename__ = "discoverable_services"

    id: Mapped[str] = mapped_column(primary_key=True)
    """`srv-…`."""
    namespace_id: Mapped[str] = mapped_column(ForeignKey("namespaces.id"))
    name: Mapped[str]
    document: Mapped[dict[str, Any]]
    """Further members of the Service shape."""
    tags: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[float]

    __table_args__ = (Index("discoverable_services_by_name", "namespace_id", "name", unique=True),)


class RegisteredInstance(Base):
    """An instance that a client has registered."""

    __tablename__ = "registered_instances"

    service_id: Mapped[str] = mapped_column(
        ForeignKey("discoverable_services.id", ondelete="CASCADE"), primary_key=True
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    attributes: Mapped[dict[str, Any]]
    is_healthy: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[float]


class CloudMapOperation(Base):
    """What a client can ask how it went. All are done at once."""

    __tablename__ = "cloud_map_operations"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """As `OperationType`."""
    targets: Mapped[dict[str, Any]]
    creator: Mapped[str | None] = mapped_column(index=True)
    """The client's id of its request."""
    created_at: Mapped[float]


class DeploymentRegistry(Base):
    """That the tasks of a deployment are instances of a service of Cloud Map."""

    __tablename__ = "deployment_registries"

    deployment_id: Mapped[str] = mapped_column(
        ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True
    )
    service_id: Mapped[str] = mapped_column(index=True)
    """Of Cloud Map."""
    port: Mapped[int | None]
    """For SRV records."""
