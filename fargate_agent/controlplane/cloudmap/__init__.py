"""The part of AWS Cloud Map that ECS, Terraform and the AWS CLI use, and names for tasks from it.

`namespaces`, `services`, `instances` and `discovering` are its operations; `registries` is what ECS
does for the tasks of its services; `zones` makes DNS records of it all, which agents are told.
"""

from fargate_agent.controlplane.cloudmap.answers import (
    answer,
    find_targets,
    is_cloud_map,
    parse_call,
)

__all__ = ["answer", "find_targets", "is_cloud_map", "parse_call"]
