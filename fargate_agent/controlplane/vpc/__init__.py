"""The VPC: subnets, security groups, and the ENIs that tasks are given in them."""

from fargate_agent.controlplane.vpc.addresses import IN_USE, count_in_use
from fargate_agent.controlplane.vpc.network import Vpc
from fargate_agent.controlplane.vpc.plan import SecurityGroup, Subnet

__all__ = ["IN_USE", "SecurityGroup", "Subnet", "Vpc", "count_in_use"]
