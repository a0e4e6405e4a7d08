"""The order in which a task definition is checked; the first thing that is wrong is what is said.

Fargate's rules count only if the client asks for Fargate. Else they decide whether Fargate is among
the `compatibilities` of the answer.
"""

from typing import Final

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.rules import (
    container,
    dependencies,
    fargate,
    files,
    linux,
    logs,
    network,
    secrets,
    task,
    volumes,
)
from fargate_agent.controlplane.rules.draft import Draft, Rule

_EVERY: Final = "every definition"
_FARGATE: Final = "definitions for Fargate"

_ORDER: Final[tuple[tuple[str, tuple[Rule, ...]], ...]] = (
    (
        _EVERY,
        (
            task.check_length,
            task.check_family,
            task.check_containers,
            task.check_essential,
            task.check_members,
            task.check_roles,
        ),
    ),
    (_FARGATE, (fargate.check_network_mode, fargate.check_task)),
    (
        _EVERY,
        (
            container.check_containers,
            network.check_members,
            network.check_ports,
            linux.check_containers,
            secrets.check_environment,
            logs.check_containers,
        ),
    ),
    (_FARGATE, (fargate.check_containers, fargate.check_log_drivers)),
    (
        _EVERY,
        (
            dependencies.check_dependencies,
            dependencies.check_volumes_from,
            network.check_proxy,
        ),
    ),
    (_FARGATE, (fargate.check_size,)),
    (_EVERY, (task.check_sums, task.check_ephemeral_storage)),
    (_FARGATE, (fargate.check_volumes,)),
    (_EVERY, (volumes.check_volumes, volumes.check_mounts, files.check_files)),
)
"""Source: which of two faults the ECS API tells, as far as that was measured."""


def check_definition(draft: Draft) -> None:
    """Return if a task definition can be registered.

    Raises:
        ApiError: the first thing that is wrong.
    """
    for scope, rules in _ORDER:
        if scope is _EVERY or draft.requires_fargate:
            for rule in rules:
                rule(draft)


def is_fargate_compatible(draft: Draft) -> bool:
    """Whether tasks of a definition that passed `check_definition` can run on Fargate."""
    try:
        for scope, rules in _ORDER:
            if scope is _FARGATE:
                for rule in rules:
                    rule(draft)
    except ApiError:
        return False
    return True
