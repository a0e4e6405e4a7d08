"""From the shapes of the API to the message that an agent is sent. Pure."""

from ipaddress import IPv4Address
from typing import Any

from fargate_agent.controlplane.model import Eni
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc import VPC_ID, Vpc
from fargate_agent.wire.messages import ContainerMessage, TaskMessage, Volume

DEFAULT_EPHEMERAL_STORAGE_GIB = 20
"""Source: ECS API, EphemeralStorage."""
