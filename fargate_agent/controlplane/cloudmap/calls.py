"""What the calls of Cloud Map have in common: the shapes of its model, ids, pages, operations."""

import secrets
import string
import time
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from botocore.loaders import Loader
from botocore.model import ServiceModel
from sqlalchemy import select

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.pages import Page, parse_page
from fargate_agent.controlplane.state.announcements import NAMES
from fargate_agent.controlplane.state.cloudmap import CloudMapOperation
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import announce
from fargate_agent.controlplane.validate import Json

TARGET_PREFIX: Final = "Route53AutoNaming_v20170314"
_ID_CHARS: Final = string.ascii_lowercase + string.digits
_ID_LENGTH: Final = 16


@cache
def service_model() -> Any:  # noqa: ANN401 - botocore ships no types
    """Return botocore's model of Cloud Map."""
    return ServiceModel(Loader().load_service_model("servicediscovery", "service-2"))


def new_cloud_map_id(prefix: str) -> str:
    """Make an id: `ns-` or `srv-`, and 16 letters and digits."""
    return f"{prefix}-{''.join(secrets.choice(_ID_CHARS) for _ in range(_ID_LENGTH))}"


def namespace_arn(arns: Arns, namespace_id: str) -> str:
    """Return the ARN of a namespace."""
    return f"arn:aws:servicediscovery:{arns.region}:{arns.account}:namespace/{namespace_id}"


def registry_arn(arns: Arns, service_id: str) -> str:
    """Return the ARN of a service of Cloud Map."""
    return f"arn:aws:servicediscovery:{arns.region}:{arns.account}:service/{service_id}"


def last_part(reference: str) -> str:
    """Return the id that an id or an ARN stands for."""
    return reference.rpartition("/")[2] if reference.startswith("arn:") else reference


def invalid_input(message: str) -> ApiError:
    """Say that a request can't be done as it is."""
    return ApiError("InvalidInput", message)


async def start_operation(
    session: Session, kind: str, targets: dict[str, str], creator: str | None = None
) -> Json:
    """Note what was done, and return the answer that names it; names may have changed."""
    operation = CloudMapOperation(
        id=f"{secrets.token_hex(16)}-{secrets.token_hex(4)}",
        kind=kind,
        targets=targets,
        creator=creator,
        created_at=round(time.time(), 3),
    )
    session.add(operation)
    announce(session, NAMES)
    await session.flush()
    return {"OperationId": operation.id}


async def find_repeated(
    session: Session, kind: str, creator: str | None, targets: dict[str, str]
) -> str | None:
    """Return the operation by which the same request has made the same thing before."""
    if not creator:
        return None
    chosen = select(CloudMapOperation).where(
        CloudMapOperation.creator == creator, CloudMapOperation.kind == kind
    )
    found = (await session.scalars(chosen)).all()
    return next((one.id for one in found if one.targets == targets), None)


def parse_cloud_map_page(request: Json) -> Page:
    """Return which part of a list a request asks for.

    Raises:
        ApiError: a parameter is wrong.
    """
    members = {"MaxResults": "maxResults", "NextToken": "nextToken"}
    return parse_page({members[name]: request[name] for name in members if name in request})


def render_cloud_map_page(page: Page, items: Sequence[tuple[str, Json]], member: str) -> Json:
    """Return a page of items that come with their keys, in the order of these."""
    rest = [(key, item) for key, item in items if key > page.after]
    shown = dict(rest[: page.size + 1])
    answer = page.render(list(shown), member, lambda key: shown[key])
    if "nextToken" in answer:
        answer["NextToken"] = answer.pop("nextToken")
    return answer
