"""Every path of the metadata endpoint, in one table.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers and agent/handlers/task_server_setup.go.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Version(StrEnum):
    """What the first part of a path is; it decides shapes and errors."""

    V2 = "V2"
    V3 = "V3"
    V4 = "V4"
    API = "API"


class What(StrEnum):
    """What is asked for."""

    CONTAINER = "container"
    TASK = "task"
    TASK_WITH_TAGS = "task with tags"
    STATS = "stats"
    TASK_STATS = "task stats"
    ASSOCIATIONS = "associations"
    ASSOCIATION = "association"
    TASKS = "tasks"
    TASKS_STATS = "tasks stats"
    CREDENTIALS = "credentials"
    PROTECTION = "task protection"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Route:
    """A kind of path, and what is behind it."""

    pattern: str
    """With `<name>` for each part that is anything without a slash."""
    version: Version
    what: What
    methods: frozenset[str] | None = None
    """None: every method will do."""


_ID: Final = "<id>"
"""Of a container, on the metadata endpoint only: `ContainerPlan.metadata_id`."""

ROUTES: Final = (
    Route("/v1/credentials", Version.V2, What.CREDENTIALS),
    Route("/v2/credentials/<credentials id>", Version.V2, What.CREDENTIALS),
    Route("/v2/metadata", Version.V2, What.TASK),
    Route("/v2/metadata/", Version.V2, What.TASK),
    Route("/v2/metadataWithTags", Version.V2, What.TASK_WITH_TAGS),
    Route("/v2/metadataWithTags/", Version.V2, What.TASK_WITH_TAGS),
    Route("/v2/metadata/<docker id>", Version.V2, What.CONTAINER),
    Route("/v2/stats", Version.V2, What.TASK_STATS),
    Route("/v2/stats/", Version.V2, What.TASK_STATS),
    Route("/v2/stats/<docker id>", Version.V2, What.STATS),
    *(
        Route(f"/{version.lower()}/{_ID}{suffix}", version, what)
        for version in (Version.V3, Version.V4)
        for suffix, what in (
            ("", What.CONTAINER),
            ("/task", What.TASK),
            ("/taskWithTags", What.TASK_WITH_TAGS),
            ("/stats", What.STATS),
            ("/task/stats", What.TASK_STATS),
            ("/associations/<type>", What.ASSOCIATIONS),
            ("/associations/<type>/<name>", What.ASSOCIATION),
        )
    ),
    Route(f"/v4/{_ID}/tasks", Version.V4, What.TASKS),
    Route(f"/v4/{_ID}/tasks/stats", Version.V4, What.TASKS_STATS),
    Route(
        f"/api/{_ID}/task-protection/v1/state",
        Version.API,
        What.PROTECTION,
        frozenset({"GET", "PUT"}),
    ),
    *(
        Route(f"/api/{_ID}/fault/v1/{fault}/{action}", Version.API, What.FAULT, frozenset({"POST"}))
        for fault in ("network-blackhole-port", "network-latency", "network-packet-loss")
        for action in ("start", "stop", "status")
    ),
)
"""The first that fits counts."""


@dataclass(frozen=True, slots=True)
class Found:
    """The route of a path, and the parts of the path that have names."""

    route: Route
    parts: Mapping[str, str]


def find_route(path: str) -> Found | None:
    """Return what a path leads to; None if there is nothing."""
    for route, pattern in _BY_HEAD.get(path[:4], ()):
        if match := pattern.fullmatch(path):
            return Found(route, match.groupdict())
    return None


def _compile(pattern: str) -> re.Pattern[str]:
    texts = re.split(r"(<[^>]*>)", pattern)
    return re.compile("".join(map(_compile_part, texts)))


def _compile_part(text: str) -> str:
    if not text.startswith("<"):
        return re.escape(text)
    return f"(?P<{text[1:-1].replace(' ', '_')}>[^/]*)"


_BY_HEAD: Final[Mapping[str, list[tuple[Route, re.Pattern[str]]]]] = {
    head: [(route, _compile(route.pattern)) for route in ROUTES if route.pattern.startswith(head)]
    for head in {route.pattern[:4] for route in ROUTES}
}
"""By `/v2/`, `/v3/` and so on."""
