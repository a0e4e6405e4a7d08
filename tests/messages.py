"""Task messages for tests: the smallest that is whole, and how to change it."""

from pathlib import Path
from typing import Any

from fargate_agent.plan import Site
from fargate_agent.wire.messages import TaskMessage

TASK_ID = "9f6a0c1b2d3e4f50617283940a5b6c7d"
CLUSTER_ARN = "arn:aws:ecs:us-east-1:000000000000:cluster/default"
TASK_ARN = f"arn:aws:ecs:us-east-1:000000000000:task/default/{TASK_ID}"


def task_arn(task_id: str = TASK_ID) -> str:
    return f"arn:aws:ecs:us-east-1:000000000000:task/default/{task_id}"


def eni_json(**changes: object) -> dict[str, Any]:
    return {
        "attachmentArn": "arn:aws:ecs:us-east-1:000000000000:attachment/1",
        "ec2Id": "eni-0123456789abcdef0",
        "macAddress": "02:00:00:00:00:05",
        "ipv4Addresses": [{"primary": True, "privateAddress": "10.213.0.5"}],
        "subnetGatewayIpv4Address": "10.213.0.1/24",
        "privateDnsName": "ip-10-213-0-5.ec2.internal",
        "domainNameServers": ["10.213.0.2"],
        "domainName": ["ec2.internal"],
        "interfaceAssociationProtocol": "veth",
        **changes,
    }


def container_json(name: str = "web", **changes: object) -> dict[str, Any]:
    return {"name": name, "image": f"{name}:1", **changes}


def task_json(*containers: dict[str, Any], **changes: object) -> dict[str, Any]:
    return {
        "arn": TASK_ARN,
        "taskClusterArn": CLUSTER_ARN,
        "desiredStatus": "RUNNING",
        "family": "demo",
        "version": "7",
        "cpu": 0.25,
        "memory": 512,
        "containers": list(containers) or [container_json()],
        "elasticNetworkInterfaces": [eni_json()],
        **changes,
    }


def task_message(*containers: dict[str, Any], **changes: object) -> TaskMessage:
    return TaskMessage.model_validate(task_json(*containers, **changes))


def site(root: Path) -> Site:
    return Site(netns_dir=root / "netns", tasks_dir=root / "tasks", logs_dir=root / "logs")
