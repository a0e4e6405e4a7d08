"""Which agents can take a task, for each subnet that it may be put in."""

from collections.abc import Mapping, Sequence

from fargate_agent.controlplane.agents.capacity import choose_instance
from fargate_agent.controlplane.agents.needs import (
    find_eni_needs,
    find_missing,
    find_subnet_needs,
)
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.model import ContainerInstance
from fargate_agent.controlplane.tasks.launch import Launch
from fargate_agent.controlplane.tasks.overrides import TaskSize
from fargate_agent.controlplane.vpc.plan import Subnet

Places = Mapping[str, Sequence[ContainerInstance]]
"""The instances that can do what the task needs, by id of the subnet."""


def find_places(instances: Sequence[ContainerInstance], launch: Launch) -> Places:
    """Return those of the instances that can do what a task needs, with room or without."""
    able = [instance for instance in instances if not find_missing(instance, launch.needs)]
    places: dict[str, Sequence[ContainerInstance]] = {}
    for subnet in launch.subnets:
        needs = find_subnet_needs(subnet)
        places[subnet.id] = (
            [instance for instance in able if not find_missing(instance, needs)] if needs else able
        )
    return places


def find_able(
    instances: Sequence[ContainerInstance], subnet: Subnet, mac: str
) -> Sequence[ContainerInstance]:
    """Return those of the instances, which can have ENIs of a subnet, that can have one of them."""
    needs = find_eni_needs(subnet, mac)
    return [one for one in instances if not find_missing(one, needs)] if needs else instances


def find_subnets(settings: ControlPlaneSettings, places: Places, size: TaskSize) -> list[str]:
    """Return the subnets in which there is an instance with room, in their order."""
    return [
        subnet_id
        for subnet_id, instances in places.items()
        if choose_instance(settings, instances, size) is not None
    ]
