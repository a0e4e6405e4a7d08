"""`fargate describe`: one task, everything that matters of it, and nothing that is empty."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, cast

import click

from fargate_agent.cli.clients.ecs import Ecs
from fargate_agent.cli.clients.shapes import Container, Task, definition_name, task_id
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.output import (
    one_line,
    print_json,
    render_moment,
    render_pair,
    render_status,
    terminal_width,
)
from fargate_agent.cli.tasks.life import add_life, tell_life

_MOMENTS: Final = (
    ("createdAt", "created"),
    ("pullStartedAt", "pull started"),
    ("pullStoppedAt", "pull ended"),
    ("startedAt", "started"),
    ("stoppingAt", "stopping"),
    ("executionStoppedAt", "essential end"),
    ("stoppedAt", "stopped"),
)
_ENI_DETAILS: Final = (
    "privateIPv4Address",
    "ipv6Address",
    "macAddress",
    "networkInterfaceId",
    "subnetId",
    "privateDnsName",
)


def describe_task(connection: Connection, cluster: str, text: str, *, as_json: bool) -> None:
    """Print everything about one task."""
    ecs = Ecs(connection)
    task = ecs.describe_one(*ecs.find_task(cluster, text))
    add_life(connection, task)
    if as_json:
        print_json(task)
        return
    for line in render_task(task, terminal_width(), datetime.now(UTC)):
        click.echo(line)


def render_task(task: Task, width: int, now: datetime) -> list[str]:
    """Lines that describe a task, then each of its containers."""
    in_order = sorted(_moments(task), key=lambda named: named[1])
    moments = [(label, render_moment(moment, now)) for label, moment in in_order]
    pairs = [*_identity(task), *_network(task), *_volumes(task), *moments]
    lines = [line for pair in pairs for line in render_pair(*pair, width)]
    reasons = own_reasons(task)
    for container in task.get("containers", []):
        reason = reasons.get(container["name"], "")
        lines += ["", *_render_container(container, reason, width, now)]
    return lines


def own_reasons(task: Task) -> dict[str, str]:
    """Return what each container gives as its reason; what was said above is not said again."""
    said = [one_line(task.get("stoppedReason", ""))]
    reasons = {}
    for container in task.get("containers", []):
        if reason := one_line(container.get("reason", "")):
            is_new = not any(reason in text for text in said)
            reasons[container["name"]] = reason if is_new else "the reason above"
            said.append(reason)
    return reasons


def render_end(task: Task) -> str:
    """Why a task stopped, in one sentence."""
    reason = one_line(task.get("stoppedReason", "no reason given"))
    code = task.get("stopCode")
    return f"{reason} ({code})" if code else reason


def _identity(task: Task) -> Iterator[tuple[str, str]]:
    yield "task", task_id(task)
    yield "arn", task["taskArn"]
    yield "definition", definition_name(task)
    status, desired = task.get("lastStatus", "-"), task.get("desiredStatus", "-")
    wanted = "" if status == desired else f" (wanted: {desired})"
    yield "status", render_status(status) + wanted
    if status == "STOPPED":
        yield "reason", render_end(task)
    if task.get("healthStatus", "UNKNOWN") != "UNKNOWN":
        yield "health", render_status(task["healthStatus"])
    if "cpu" in task and "memory" in task:
        yield "size", f"{int(task['cpu']) / 1024:g} vCPU, {task['memory']} MiB"
    if "platformVersion" in task:
        yield "platform", f"{task.get('launchType', 'FARGATE')} {task['platformVersion']}"
    if task.get("startedBy"):
        yield "started by", one_line(task["startedBy"])


def _network(task: Task) -> Iterator[tuple[str, str]]:
    for attachment in task.get("attachments", []):
        if attachment.get("type") not in ("ElasticNetworkInterface", "eni"):
            continue
        details = {d.get("name"): d.get("value", "") for d in attachment.get("details", [])}
        told = [details[name] for name in _ENI_DETAILS if details.get(name)]
        yield "network", ", ".join([*told, attachment.get("status", "").lower()])


def _volumes(task: Task) -> Iterator[tuple[str, str]]:
    for attachment in task.get("attachments", []):
        if attachment.get("type") != "AmazonElasticBlockStorage":
            continue
        details = {d.get("name"): d.get("value", "") for d in attachment.get("details", [])}
        told = [details[name] for name in ("volumeName", "volumeId") if details.get(name)]
        if details.get("deleteOnTermination") == "false":
            told.append("kept")
        yield "volume", ", ".join([*told, attachment.get("status", "").lower()])


def _moments(task: Task) -> Iterator[tuple[str, datetime]]:
    facts = cast(dict[str, Any], task)
    for name, label in _MOMENTS:
        if facts.get(name) is not None:
            yield label, facts[name]


def _render_container(container: Container, reason: str, width: int, now: datetime) -> list[str]:
    status = render_status(container.get("lastStatus", "-"))
    if "exitCode" in container:
        status += f", exit code {container['exitCode']}"
    pairs = [("container", container["name"]), ("status", status), ("reason", reason)]
    pairs += tell_life(container, now)
    facts = cast(dict[str, Any], container)
    for name, label in (
        ("image", "image"),
        ("imageDigest", "digest"),
        ("runtimeId", "runtime id"),
    ):
        if facts.get(name):
            pairs.append((label, one_line(facts[name])))
    return [line for pair in pairs for line in render_pair(*pair, width)]
