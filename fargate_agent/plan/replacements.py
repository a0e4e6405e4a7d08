"""What a task definition names and another thing stands for on this machine; pure."""

from collections.abc import Iterator
from typing import Final

from fargate_agent.plan.efs import find_efs_replacements
from fargate_agent.plan.model import Replacement, Site
from fargate_agent.wire.messages import TaskMessage

KEPT_HERE: Final = "the value of fargate secrets"
LOCAL_FILE: Final = "a file of the agent's setting local_buckets"
LOCAL_DISK: Final = "a file on this machine's disk, as fast and as encrypted as that"
LOCAL_LOGS: Final = "the copy of the output kept on this machine, shown by fargate logs"


def plan_replacements(message: TaskMessage, site: Site) -> tuple[Replacement, ...]:
    """Return all that is known before the start, each once."""
    found = [
        *_find_roles(message),
        *_find_logs(message, site),
        *_find_volumes(message),
        *find_efs_replacements(message, site),
    ]
    if site.is_local:
        found += [*_find_secrets(message), *_find_files(message)]
    return tuple(dict.fromkeys(found))


def _find_roles(message: TaskMessage) -> Iterator[Replacement]:
    for role in (message.role_credentials, message.execution_role_credentials):
        if role is not None and role.made_from is not None:
            yield Replacement(kind="role", what=role.role_arn, by=role.made_from)


def _find_logs(message: TaskMessage, site: Site) -> Iterator[Replacement]:
    """Name the log groups."""
    for container in message.containers if site.logs_are_local else ():
        log = container.log_configuration
        if log is not None and log.log_driver == "awslogs":
            group = log.options.get("awslogs-group", "awslogs")
            yield Replacement(kind="logs", what=group, by=LOCAL_LOGS)


def _find_volumes(message: TaskMessage) -> Iterator[Replacement]:
    for volume in message.volumes:
        if volume.ebs is not None:
            what = f"{volume.ebs.volume_id} ({volume.name})"
            yield Replacement(kind="ebs-volume", what=what, by=LOCAL_DISK)


def _find_secrets(message: TaskMessage) -> Iterator[Replacement]:
    """Name secrets and parameters, each without the key of it that is wanted."""
    for container in message.containers:
        log, login = container.log_configuration, container.repository_credentials
        references = [
            *(secret.value_from for secret in container.secrets),
            *(secret.value_from for secret in (log.secret_options if log else ())),
            *([login.credentials_parameter] if login else []),
        ]
        for reference in references:
            yield Replacement(kind="secret", what=_without_key(reference), by=KEPT_HERE)


def _find_files(message: TaskMessage) -> Iterator[Replacement]:
    for container in message.containers:
        for file in container.environment_files:
            yield Replacement(kind="environment-file", what=file.value, by=LOCAL_FILE)


def _without_key(reference: str) -> str:
    """`arn:aws:secretsmanager:us-east-1:123456789012:secret:name-AbCdEf` is the longest name."""
    return ":".join(reference.split(":")[:7]) if reference.startswith("arn:") else reference
