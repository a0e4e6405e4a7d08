"""The ECS API, spoken by botocore as any AWS client does. Calls block."""

import json
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import urlsplit

from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
)
from botocore.session import Session

from fargate_agent.cli.clients.shapes import Definition, Task, TasksAnswer
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError, NotKnownError, RefusedError, UnreachableError

CONNECT_TIMEOUT_S: Final = 5
READ_TIMEOUT_S: Final = 60
ATTEMPTS: Final = 3
"""Source: botocore, `data/_retry.json` and standard mode, `total_max_attempts`."""
DESCRIBE_AT_ONCE: Final = 100
"""Most tasks that one DescribeTasks takes. Source: ECS API reference, DescribeTasks, `tasks`."""
_WRONG_REQUEST: Final = frozenset(
    {
        "ClientException",
        "InvalidParameterException",
        "SerializationException",
        "UnsupportedFeatureException",
        "ValidationException",
    }
)
"""Codes of errors that are about what was asked for. Source: ECS API reference, common errors."""
_TASK_ID: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Ecs:
    """One control plane. Every failure is a `CliError` that names the operation."""

    def __init__(self, connection: Connection) -> None:
        """Make the client; nothing is sent yet."""
        self.endpoint = connection.endpoint
        with _call("make a client", self.endpoint):
            self._client = _make_client(connection)

    def register(self, definition: Definition) -> str:
        """Register a task definition, and return its ARN."""
        with _call("RegisterTaskDefinition", self.endpoint):
            answer = self._client.register_task_definition(**definition)
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    def essential_containers(self, definition: str) -> set[str]:
        """Names of the containers of a task definition whose end is the task's."""
        with _call("DescribeTaskDefinition", self.endpoint):
            answer = self._client.describe_task_definition(taskDefinition=definition)
        containers = answer["taskDefinition"]["containerDefinitions"]
        return {one["name"] for one in containers if one.get("essential", True)}

    def run(self, request: dict[str, Any]) -> TasksAnswer:
        """Start tasks."""
        with _call("RunTask", self.endpoint):
            answer = self._client.run_task(**request)
        return {"tasks": answer.get("tasks", []), "failures": answer.get("failures", [])}

    def stop(self, cluster: str, task: str, reason: str | None = None) -> Task:
        """Ask for a task's end, and return how it stands."""
        more = {} if reason is None else {"reason": reason}
        with _call("StopTask", self.endpoint):
            return cast(Task, self._client.stop_task(cluster=cluster, task=task, **more)["task"])

    def describe(self, cluster: str, tasks: Sequence[str]) -> list[Task]:
        """How these tasks stand; the ones that nobody knows any more are left out."""
        found: list[Task] = []
        for start in range(0, len(tasks), DESCRIBE_AT_ONCE):
            batch = list(tasks[start : start + DESCRIBE_AT_ONCE])
            with _call("DescribeTasks", self.endpoint):
                found += self._client.describe_tasks(cluster=cluster, tasks=batch)["tasks"]
        return found

    def describe_one(self, cluster: str, task: str) -> Task:
        """How one task stands.

        Raises:
            NotKnownError: there is no such task.
        """
        found = self.describe(cluster, [task])
        if not found:
            raise NotKnownError(f"no task {task} in cluster {cluster}")
        return found[0]

    def list_tasks(self, cluster: str, statuses: Sequence[str] = ("RUNNING",)) -> list[str]:
        """ARNs of the tasks whose desired status is one of these."""
        arns: list[str] = []
        with _call("ListTasks", self.endpoint):
            pages = self._client.get_paginator("list_tasks")
            for status in statuses:
                for page in pages.paginate(cluster=cluster, desiredStatus=status):
                    arns += page["taskArns"]
        return arns

    def find_task(self, cluster: str, text: str) -> tuple[str, str]:
        """Cluster and id of the task that an ARN, an id or the beginning of an id stands for.

        Raises:
            NotKnownError: no id begins so.
            CliError: several do.
        """
        if (known := parse_task(cluster, text)) is not None:
            return known
        arns = self.list_tasks(cluster, ("RUNNING", "STOPPED"))
        ids = sorted({arn.rpartition("/")[2] for arn in arns})
        matches = [task for task in ids if text and task.startswith(text)]
        if not matches:
            raise NotKnownError(f"no task begins with {text!r} in cluster {cluster}")
        if len(matches) > 1:
            some = ", ".join(matches[:3]) + (", …" if len(matches) > 3 else "")
            raise CliError(f"{len(matches)} tasks begin with {text!r}: {some}")
        return cluster, matches[0]

    def describe_agents(self) -> list[dict[str, Any]]:
        """Return the container instances of all clusters that aren't inactive."""
        found: list[dict[str, Any]] = []
        with _call("DescribeContainerInstances", self.endpoint):
            clusters = self._client.get_paginator("list_clusters").paginate()
            pages = self._client.get_paginator("list_container_instances")
            for cluster in (arn for page in clusters for arn in page["clusterArns"]):
                for page in pages.paginate(cluster=cluster):
                    if arns := page["containerInstanceArns"]:
                        answer = self._client.describe_container_instances(
                            cluster=cluster, containerInstances=arns
                        )
                        found += answer["containerInstances"]
        return found

    def check(self) -> None:
        """Return when the control plane has answered a signed call."""
        with _call("DescribeClusters", self.endpoint):
            self._client.describe_clusters()


def parse_task(cluster: str, text: str) -> tuple[str, str] | None:
    """Cluster and id that an ARN or a whole id says by itself; None for anything shorter."""
    if text.startswith("arn:"):
        *before, task = text.rpartition(":")[2].split("/")
        return (before[1] if len(before) > 1 else cluster), task
    return (cluster, text) if _TASK_ID.fullmatch(text) else None


def add_ours(http_response: Any, parsed: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 - botocore ships no types
    """Add to an answer what isn't of ECS, which botocore drops.

    That is how often containers were restarted, and what was replaced on the machine of the task.
    """
    if http_response.status_code != HTTPStatus.OK:
        return
    whole = json.loads(http_response.content)
    for task, told in zip(parsed.get("tasks", []), whole.get("tasks", []), strict=True):
        if "replacements" in told:
            task["replacements"] = told["replacements"]
        pairs = zip(task.get("containers", []), told.get("containers", []), strict=True)
        for container, said in pairs:
            if "restartCount" in said:
                container["restartCount"] = said["restartCount"]


def _make_client(connection: Connection) -> BaseClient:
    host = urlsplit(connection.endpoint).hostname
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        proxies={} if host in _LOOPBACK else None,
        user_agent_extra="fargate-cli",
    )
    session = Session()
    if connection.access_key_id:
        # a profile of the caller's shell has no part in this, and may not exist
        session.session_var_map["profile"] = (None, None, None, None)
    client = session.create_client(
        "ecs",
        endpoint_url=connection.endpoint,
        region_name=connection.region,
        aws_access_key_id=connection.access_key_id,
        aws_secret_access_key=connection.secret_access_key,
        aws_session_token=connection.session_token,
        config=config,
    )
    client.meta.events.register("after-call.ecs.DescribeTasks", add_ours)
    return client


@contextmanager
def _call(operation: str, endpoint: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        text = f"{operation}: {said.get('Code')}: {_one_line(said.get('Message', ''))}"
        kind = RefusedError if said.get("Code") in _WRONG_REQUEST else CliError
        raise kind(text) from error
    except ParamValidationError as error:
        text = f"{operation}: {_explain_invalid(str(error.kwargs['report']))}"
        raise RefusedError(text) from error
    except NoCredentialsError as error:
        raise explain_no_key(endpoint) from error
    except (EndpointConnectionError, ConnectionError, HTTPClientError) as error:
        raise explain_no_answer(endpoint) from error
    except (BotoCoreError, ValueError) as error:
        raise CliError(f"{operation} at {endpoint}: {_one_line(str(error))}") from error


def explain_no_answer(endpoint: str) -> UnreachableError:
    """Say what to do where no control plane runs."""
    return UnreachableError(
        f'no control plane answers at {endpoint}: start one with "fargate up", or set'
        " AWS_ENDPOINT_URL_ECS"
    )


def explain_no_key(endpoint: str) -> CliError:
    """Say what to do without a key: where nothing listens, a key is no help. Blocks."""
    parts = urlsplit(endpoint)
    address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    try:
        socket.create_connection(address, CONNECT_TIMEOUT_S).close()
    except OSError:
        return explain_no_answer(endpoint)
    return CliError(
        f"no key for the control plane at {endpoint}: name its stack by --state-dir, or set"
        " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def _explain_invalid(report: str) -> str:
    """Say in one line what botocore found wrong with a request; its list of all fields is cut."""
    found = [re.sub(r", must be one of: .*", "", line) for line in report.splitlines()]
    return "; ".join(re.sub(r"<class '(\w+)'>", r"\1", line) for line in found)


def _one_line(text: str) -> str:
    return " ".join(text.split())
