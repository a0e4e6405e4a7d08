"""ARNs and ids: how they are written, and what a client may write in their place."""

import re
import secrets
import uuid
from dataclasses import dataclass
from typing import Final

from fargate_agent.controlplane.errors import ApiError, client_error, invalid_parameter

CLUSTER_NAME: Final = re.compile(r"[a-zA-Z0-9\-_]{1,255}")
MIN_TASK_ID_CHARS: Final = 32
MAX_TASK_ID_CHARS: Final = 36
"""Source: ECS, `taskId length should be one of [32,36]`."""

_FAMILY: Final = re.compile(r"(?P<family>[A-Za-z0-9_-]{1,255})(:(?P<revision>[0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class TaskDefinitionName:
    """A family, and a revision if one was named."""

    family: str
    revision: int | None


@dataclass(frozen=True, slots=True)
class Arns:
    """Writes and reads the ARNs of one account in one region."""

    region: str
    account: str

    def cluster(self, name: str) -> str:
        """Return the ARN of a cluster."""
        return self._arn(f"cluster/{name}")

    def task(self, cluster: str, task_id: str) -> str:
        """Return the ARN of a task."""
        return self._arn(f"task/{cluster}/{task_id}")

    def container(self, cluster: str, task_id: str, container_id: str) -> str:
        """Return the ARN of a container."""
        return self._arn(f"container/{cluster}/{task_id}/{container_id}")

    def container_instance(self, cluster: str, instance_id: str) -> str:
        """Return the ARN of a container instance."""
        return self._arn(f"container-instance/{cluster}/{instance_id}")

    def attachment(self, attachment_id: str) -> str:
        """Return the ARN of an ENI attachment."""
        return self._arn(f"attachment/{attachment_id}")

    def task_definition(self, family: str, revision: int) -> str:
        """Return the ARN of a task definition."""
        return self._arn(f"task-definition/{family}:{revision}")

    def user(self, name: str) -> str:
        """Return the ARN of a principal."""
        return f"arn:aws:iam::{self.account}:user/{name}"

    def role(self, name: str) -> str:
        """Return the ARN of a role, given as name or ARN."""
        return name if name.startswith("arn:") else f"arn:aws:iam::{self.account}:role/{name}"

    def parse_cluster(self, reference: str) -> str:
        """Return the name of a cluster, given as name or ARN."""
        return reference.removeprefix(self._arn("cluster/"))

    def parse_task_definition(self, reference: str) -> TaskDefinitionName | None:
        """Return what is meant by `family`, `family:revision` or an ARN; None if nothing can be."""
        match = _FAMILY.fullmatch(reference.removeprefix(self._arn("task-definition/")))
        if match is None:
            return None
        revision = None if match["revision"] is None else int(match["revision"])
        return None if revision == 0 else TaskDefinitionName(match["family"], revision)

    def parse_task(self, reference: str, cluster: str) -> str:
        """Return the id of a task of a cluster, given as id or ARN, in its old or new form.

        Raises:
            ApiError: it is the ARN of something else, or no id.
        """
        task_id = reference
        if reference.startswith("arn:"):
            _, _, path = reference.partition(":task/")
            named, _, task_id = path.rpartition("/")
            if named not in {"", cluster}:
                raise wrong_cluster(named, cluster)
        if not MIN_TASK_ID_CHARS <= len(task_id) <= MAX_TASK_ID_CHARS:
            raise invalid_parameter("taskId length should be one of [32,36]")
        return task_id

    def parse_container_instance(self, reference: str, cluster: str) -> str:
        """Return the id of a container instance of a cluster, given as its ARN.

        Raises:
            ApiError: it is not such an ARN.
        """
        found = reference.removeprefix(self.container_instance(cluster, ""))
        if not re.fullmatch(r"[0-9a-f]{32}", found):  # unverified
            raise client_error("The referenced container instance is not one of this cluster.")
        return found

    def _arn(self, resource: str) -> str:
        return f"arn:aws:ecs:{self.region}:{self.account}:{resource}"


def new_id() -> str:
    """Make the id of a task or a container instance: 32 hex digits."""
    return secrets.token_hex(16)


def new_uuid() -> str:
    """Make the id of a container, an attachment or a message."""
    return str(uuid.uuid4())


def new_eni_id() -> str:
    """Make the id of an ENI: 17 hex digits."""
    return f"eni-{secrets.token_hex(9)[:17]}"


def new_volume_id() -> str:
    """Make the id of an EBS volume: 17 hex digits."""
    return f"vol-{secrets.token_hex(9)[:17]}"


def new_mac() -> str:
    """Make a MAC address: locally administered, for one station."""
    return "02:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(5))


def wrong_cluster(named: str, cluster: str) -> ApiError:
    """Return the error for an ARN of another cluster, in the words that clients of ECS know."""
    return invalid_parameter(
        f"Invalid identifier: Identifier is for cluster {named}. Your cluster is {cluster}"
    )
