"""Lists in pages: `maxResults`, and a `nextToken` that says after what the next page begins.

A page begins after a key, not at a position: what comes and goes between two pages shifts nothing.
"""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.validate import Json

MAX_RESULTS: Final = 100
"""Largest page, and the default. Source: ECS API, ListTasks."""

_MAX_SECONDS: Final = 1e11
"""Since 1970: in the year 5138."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    size: int
    after: str
    """Key of the last item of the page before; empty: this is the first."""

    def select(self, chosen: Select[str], key: InstrumentedAttribute[str]) -> Select[str]:
        """Select the keys of this page, and one more if there is another page."""
        return chosen.where(key > self.after).order_by(key).limit(self.size + 1)

    def render(
        self, keys: Sequence[str], member: str, show: Callable[[str], Any] = lambda key: key
    ) -> Json:
        """Return this page under the name `member`.

        Args:
            keys: what `select` has found.
            member: of the answer.
            show: makes an item of a key.
        """
        shown = keys[: self.size]
        answer: Json = {member: [show(key) for key in shown]}
        if len(keys) > self.size:
            answer["nextToken"] = base64.urlsafe_b64encode(shown[-1].encode()).decode()
        return answer


def parse_page(request: Json, max_results: int = MAX_RESULTS) -> Page:
    """Return which part of a list a request asks for.

    Args:
        request: what the client asked, with its `maxResults` and `nextToken`.
        max_results: the largest page, and the default.

    Raises:
        ApiError: a parameter is wrong.
    """
    size = request.get("maxResults", max_results)
    if not 1 <= size <= max_results:  # unverified
        raise invalid_parameter(f"maxResults must be between 1 and {max_results}.")
    token = request.get("nextToken")
    return Page(size, _parse_token(token) if token else "")


def render_page(keys: Sequence[str], request: Json, member: str) -> Json:
    """Return one page of a short list, all of which is at hand, under the name `member`.

    Raises:
        ApiError: a parameter is wrong.
    """
    page = parse_page(request)
    return page.render(cut(sorted(keys), page), member)


def cut(keys: Sequence[str], page: Page) -> Sequence[str]:
    """Return of sorted keys what `Page.select` would find."""
    start = bisect_right(keys, page.after)
    return keys[start : start + page.size + 1]


def _parse_token(token: str) -> str:
    try:
        key = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        key = ""
    if not key or "\0" in key:  # which no text in PostgreSQL can hold
        # unverified
        raise invalid_parameter("Invalid token.")
    return key


def parse_since(text: str) -> float:
    """Return from when on a list is asked for, in seconds since 1970.

    Raises:
        ApiError: it is no such time.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MAX_SECONDS:  # false for NaN too
        raise invalid_parameter("since must be a time in seconds since 1970.")
    return seconds
