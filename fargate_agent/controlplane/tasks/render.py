"""Rows as the shapes of the API. Pure."""

from typing import Final

from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.state.model import Task
from fargate_agent.controlplane.tasks.health import STARTING, UNKNOWN
from fargate_agent.controlplane.tasks.managed_volumes import render_attachments
from fargate_agent.controlplane.validate import Json

_WHEN_KNOWN: Final = {
    "connectivityAt": "connectivity_at",
    "pullStartedAt": "pull_started_at",
    "pullStoppedAt": "pull_stopped_at",
    "startedAt": "started_at",
    "stoppingAt": "stopping_at",
    "executionStoppedAt": "execution_stopped_at",
    "stoppedAt": "stopped_at",
    "stopCode": "stop_code",
    "stoppedReason": "stopped_reason",
    "startedBy": "started_by",
}
"""Members that are absent until they are known."""


def render_task(task: Task, arns: Arns) -> Json:
    """Return a task as DescribeTasks answers it, with its tags."""
    shown: Json = {
        **task.document,
        "taskArn": arns.task(task.cluster, task.id),
        "clusterArn": arns.cluster(task.cluster),
        "availabilityZone": task.eni.availability_zone or f"{arns.region}a",
        "attachments": [_render_attachment(task), *render_attachments(task)],
        "containers": [_render_container(container, task) for container in task.containers],
        "cpu": str(task.cpu_units),
        "memory": str(task.memory_mib),
        "createdAt": task.created_at,
        "desiredStatus": task.desired_status,
        "lastStatus": task.last_status,
        "healthStatus": UNKNOWN if task.health_status == STARTING else task.health_status,
        "group": task.group,
        "version": task.version,
        "tags": task.tags,
    }
    if task.connectivity_at is not None:
        shown["connectivity"] = "CONNECTED" if task.connected else "DISCONNECTED"
    for member, attribute in _WHEN_KNOWN.items():
        value = getattr(task, attribute)
        if value is not None:
            shown[member] = value
    return shown


def _render_attachment(task: Task) -> Json:
    eni = task.eni
    details = {"subnetId": eni.subnet_id}
    if eni.status != "PRECREATED":
        details |= {
            "networkInterfaceId": eni.id,
            "macAddress": eni.mac,
            "privateDnsName": eni.private_dns_name,
            "privateIPv4Address": eni.address,
        }
        if eni.ipv6_address is not None:
            details["ipv6Address"] = eni.ipv6_address
    return {
        "id": eni.attachment_id,
        "type": "ElasticNetworkInterface",
        "status": eni.status,
        "details": [{"name": name, "value": value} for name, value in details.items()],
    }


def _render_container(container: Json, task: Task) -> Json:
    eni = task.eni
    interface = {"attachmentId": eni.attachment_id, "privateIpv4Address": eni.address}
    if eni.ipv6_address is not None:
        interface["ipv6Address"] = eni.ipv6_address
    shown = {
        "healthStatus": UNKNOWN,
        **container,
        "networkBindings": [],
        "networkInterfaces": [] if eni.status == "PRECREATED" else [interface],
    }
    shown.pop("healthStatusSince", None)
    return shown
