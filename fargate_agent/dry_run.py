"""`fargate-agent plan`: the steps of a task message, printed instead of done."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

from pydantic import ValidationError

from fargate_agent.drivers import Drivers
from fargate_agent.errors import TaskError
from fargate_agent.plan import ContainerPlan, EniPlan, Site, plan_task
from fargate_agent.task.life import STOP_MARGIN_S
from fargate_agent.task.steps import (
    Step,
    Wave,
    ground_wave,
    local_volumes_wave,
    network_waves,
)
from fargate_agent.wire.faults import render_faults
from fargate_agent.wire.messages import TaskMessage

STDIN: Final = Path("-")


class MessageError(Exception):
    """A file holds no task message, or one that the agent would refuse."""


class _NoDrivers:
    """Stands for every driver and every method of it: the steps made with it are only looked at."""

    def __getattr__(self, name: str) -> "_NoDrivers":
        return self

    def __getitem__(self, key: object) -> "_NoDrivers":
        return self

    def __call__(self, *arguments: object) -> None:
        raise AssertionError("a dry run does nothing")


def print_steps(path: Path, site: Site) -> None:
    """Print the steps of every task message of a file.

    Raises:
        MessageError: see `read_messages` and `render_steps`.
    """
    for message in read_messages(path):
        sys.stdout.write("\n".join([*render_steps(message, site), ""]))


def read_messages(path: Path) -> list[TaskMessage]:
    """Read the task messages of a file; `-` is standard input.

    The file holds a task message, a `PayloadMessage` or its envelope, or an agent's record of a
    task.

    Raises:
        MessageError: it can't be read, is not JSON, or a message in it is not right.
    """
    name = "standard input" if path == STDIN else str(path)
    try:
        text = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
        document = json.loads(text)
    except OSError as error:
        raise MessageError(f"{name}: {error.strerror}") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise MessageError(f"{name} is not JSON: {error}") from error
    messages = _find_messages(document)
    if not messages:
        raise MessageError(f"{name} holds no task message")
    try:
        return [TaskMessage.model_validate(message) for message in messages]
    except ValidationError as error:
        raise MessageError(f"{name}: {render_faults(error)}") from error


def render_steps(message: TaskMessage, site: Site) -> list[str]:
    """Return a line for each thing that the agent would do with a message; pure.

    No secret and no value of a variable is in it.

    Raises:
        MessageError: the agent would refuse the task; the text is its reason.
    """
    try:
        plan = plan_task(message, site)
    except TaskError as error:
        raise MessageError(error.reason) from error
    nothing = cast(Drivers, _NoDrivers())
    waves = [
        ground_wave(plan, nothing),
        local_volumes_wave(plan, nothing),
        *network_waves(plan, nothing),
    ]
    waves = [wave for wave in waves if wave]
    return [
        f"task {plan.id}: {plan.family}:{plan.revision}, cluster {plan.cluster}",
        "set up, steps of one number side by side:",
        *_number(waves),
        "interfaces of the task:",
        *(f"     {_describe_eni(eni)}" for eni in plan.enis),
        "pull through the first ENI, side by side:",
        *sorted({f"     {container.image}" for container in plan.containers}),
        "create and start each container when its dependencies allow:",
        *(f"     {_describe_container(container)}" for container in plan.containers),
        "take down, when an essential container ends or a stop comes:",
        *(f"     {_describe_stop(container)}" for container in reversed(plan.containers)),
        *_number([*reversed(waves)], deadlines=True),
    ]


def _find_messages(document: object) -> list[object]:
    """Return what may be task messages in a document: what has an ARN and containers is one."""
    if not isinstance(document, dict):
        return []
    inner = document.get("message")  # of an envelope, and of a record
    if isinstance(inner, dict):
        return _find_messages(inner)
    if isinstance(document.get("tasks"), list):
        return list(document["tasks"])
    return [document] if "arn" in document else []


def _number(waves: list[Wave], *, deadlines: bool = False) -> Iterator[str]:
    for number, wave in enumerate(waves, start=1):
        for step in wave:
            yield f"  {number}  {step.what}{_describe_deadline(step) if deadlines else ''}"


def _describe_deadline(step: Step) -> str:
    return f" (at most {step.undo_timeout_s:g} s)"


def _describe_eni(eni: EniPlan) -> str:
    parts = [f"{eni.ifname}: {eni.id}", f"{eni.kind} {eni.mac}", f"{eni.address} via {eni.gateway}"]
    if eni.ipv6_address:
        parts.append(f"{eni.ipv6_address} via {eni.ipv6_gateway}")
    return ", ".join(parts)


def _describe_stop(container: ContainerPlan) -> str:
    after = f", after {', '.join(container.stops_after)}" if container.stops_after else ""
    return f"{container.name}{after} (at most {container.stop_timeout_s + STOP_MARGIN_S} s)"


def _describe_container(container: ContainerPlan) -> str:
    after = ", ".join(f"{one.container} ({one.condition})" for one in container.depends_on)
    parts = [
        container.name,
        "essential" if container.essential else "not essential",
        f"image {container.image}",
        f"log driver {container.log.driver}",
        *([f"after {after}"] if after else []),
    ]
    return ", ".join(parts)
