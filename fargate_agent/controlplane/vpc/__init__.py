"""VPCs: subnets, security groups, and the ENIs that tasks are given in them."""

from fargate_agent.controlplane.vpc.addresses import IN_USE, count_in_use
from fargate_agent.controlplane.vpc.network import Vpc, plan_vpc, read_vpc, read_vpc_of
from fargate_agent.controlplane.vpc.plan import Subnet

__all__ = ["IN_USE", "Subnet", "Vpc", "count_in_use", "plan_vpc", "read_vpc", "read_vpc_of"]
