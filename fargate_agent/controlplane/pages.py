"""Lists in pages: `maxResults`, and a `nextToken` that says where the next page begins."""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.validate import Json

MAX_RESULTS: Final = 100
"""Largest page, and the default. Source: ECS API, ListTasks."""


def render_page(arns: Sequence[str], request: Json, member: str) -> Json:
    """Return one page of `arns` under the name `member`.

    Args:
        arns: all there are, in an order that is the same for every page; sorted, if one can vanish
            between two pages.
        request: what the client asked, with its `maxResults` and `nextToken`.
        member: of the answer.

    Raises:
        ApiError: a parameter is wrong.
    """
    size = request.get("maxResults", MAX_RESULTS)
    if not 1 <= size <= MAX_RESULTS:
        raise invalid_parameter(f"maxResults must be between 1 and {MAX_RESULTS}.")
    start = 0
    if token := request.get("nextToken"):
        last = _parse_token(token)
        start = arns.index(last) + 1 if last in arns else bisect_right(arns, last)
    page = list(arns[start : start + size])
    answer: Json = {member: page}
    if start + size < len(arns):
        answer["nextToken"] = base64.urlsafe_b64encode(page[-1].encode()).decode()
    return answer


def _parse_token(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid_parameter("Invalid token.") from None
