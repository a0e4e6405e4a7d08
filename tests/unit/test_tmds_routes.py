import pytest

from fargate_agent.tmds.routes import ROUTES, Version, What, find_route


@pytest.mark.parametrize(
    ("path", "version", "what", "parts"),
    [
        ("/v1/credentials", Version.V2, What.CREDENTIALS, {}),
        ("/v2/credentials/c", Version.V2, What.CREDENTIALS, {"credentials_id": "c"}),
        ("/v2/metadata", Version.V2, What.TASK, {}),
        ("/v2/metadata/", Version.V2, What.TASK, {}),
        ("/v2/metadata/d", Version.V2, What.CONTAINER, {"docker_id": "d"}),
        ("/v2/metadataWithTags", Version.V2, What.TASK_WITH_TAGS, {}),
        ("/v2/stats/", Version.V2, What.TASK_STATS, {}),
        ("/v2/stats/d", Version.V2, What.STATS, {"docker_id": "d"}),
        ("/v3/i", Version.V3, What.CONTAINER, {"id": "i"}),
        ("/v3/i/taskWithTags", Version.V3, What.TASK_WITH_TAGS, {"id": "i"}),
        ("/v4/i", Version.V4, What.CONTAINER, {"id": "i"}),
        ("/v4/", Version.V4, What.CONTAINER, {"id": ""}),
        ("/v4/i/task", Version.V4, What.TASK, {"id": "i"}),
        ("/v4/i/task/stats", Version.V4, What.TASK_STATS, {"id": "i"}),
        ("/v4/i/associations/t", Version.V4, What.ASSOCIATIONS, {"id": "i", "type": "t"}),
        (
            "/v4/i/associations/t/n",
            Version.V4,
            What.ASSOCIATION,
            {"id": "i", "type": "t", "name": "n"},
        ),
        ("/v4/i/tasks/stats", Version.V4, What.TASKS_STATS, {"id": "i"}),
        ("/api/i/task-protection/v1/state", Version.API, What.PROTECTION, {"id": "i"}),
        ("/api/i/fault/v1/network-latency/stop", Version.API, What.FAULT, {"id": "i"}),
    ],
)
def test_path_leads_to(path: str, version: Version, what: What, parts: dict[str, str]) -> None:
    found = find_route(path)

    assert found is not None
    assert (found.route.version, found.route.what, found.parts) == (version, what, parts)


@pytest.mark.parametrize(
    "path",
    ["/", "/v2", "/v4", "/v4/i/", "/v4/i/Task", "/v5/i", "/v3/i/tasks", "/api/i/fault/v1/x/start"],
)
def test_path_leads_nowhere(path: str) -> None:
    assert find_route(path) is None


def test_every_route_is_found_by_its_own_pattern() -> None:
    for route in ROUTES:
        found = find_route(route.pattern)
        assert found is not None
        assert found.route is route
