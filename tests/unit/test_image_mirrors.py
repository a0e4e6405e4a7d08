"""Which names of an image are tried, for a table of `registry_mirrors`."""

import pytest

from fargate_agent.image.mirrors import Mirrors
from fargate_agent.image.reference import InvalidReferenceError, parse_reference

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
DIGEST = "sha256:" + "a" * 64


def candidates(table: dict[str, list[str]], image: str) -> list[str]:
    return [one.reference.name for one in Mirrors(table).candidates(parse_reference(image))]


@pytest.mark.parametrize(
    ("table", "image", "tried"),
    [
        pytest.param({}, "nginx", ["docker.io/library/nginx:latest"], id="no mirrors"),
        pytest.param(
            {"docker.io": ["mirror:5000/hub"]},
            "nginx:1",
            ["mirror:5000/hub/library/nginx:1", "docker.io/library/nginx:1"],
            id="pull-through cache of Docker Hub",
        ),
        pytest.param(
            {"index.docker.io": ["mirror:5000"]},
            "team/web",
            ["mirror:5000/team/web:latest", "docker.io/team/web:latest"],
            id="Docker Hub's other name",
        ),
        pytest.param(
            {ECR: ["a.test", "b.test/ecr"]},
            f"{ECR}/web:2",
            ["a.test/web:2", "b.test/ecr/web:2", f"{ECR}/web:2"],
            id="several, in order",
        ),
        pytest.param(
            {"r.test": ["all.test"], "r.test/team": ["team.test"]},
            "r.test/team/web:1",
            ["team.test/web:1", "r.test/team/web:1"],
            id="the longest prefix",
        ),
        pytest.param(
            {"r.test": ["all.test"], "r.test/team": ["team.test"]},
            "r.test/teams/web:1",
            ["all.test/teams/web:1", "r.test/teams/web:1"],
            id="at a boundary of the path",
        ),
        pytest.param(
            {"r.test": ["all.test"]}, "r.test:5000/web:1", ["r.test:5000/web:1"], id="another port"
        ),
        pytest.param(
            {"r.test/web": ["m.test/other"]},
            "r.test/web:1",
            ["m.test/other:1", "r.test/web:1"],
            id="one repository",
        ),
        pytest.param(
            {"R.test": ["m.test"]}, "r.TEST/web:1", ["m.test/web:1", "r.TEST/web:1"], id="case"
        ),
        pytest.param(
            {"r.test": ["m.test", "no-original"]}, "r.test/web:1", ["m.test/web:1"], id="only them"
        ),
        pytest.param(
            {"r.test": ["r.test", "m.test"]},
            "r.test/web:1",
            ["r.test/web:1", "m.test/web:1"],
            id="the original first",
        ),
        pytest.param(
            {"r.test": ["m.test"]},
            f"r.test/web:1@{DIGEST}",
            [f"m.test/web:1@{DIGEST}", f"r.test/web:1@{DIGEST}"],
            id="tag and digest",
        ),
        pytest.param(
            {"r.test": ["docker.io"]},
            f"r.test/web@{DIGEST}",
            [f"docker.io/library/web@{DIGEST}", f"r.test/web@{DIGEST}"],
            id="Docker Hub as a mirror",
        ),
    ],
)
def test_names_are_tried_in_order(
    table: dict[str, list[str]], image: str, tried: list[str]
) -> None:
    assert candidates(table, image) == tried


def test_only_other_names_are_mirrors() -> None:
    table = {"r.test": ["m.test", "r.test"]}

    found = Mirrors(table).candidates(parse_reference("r.test/web:1"))

    assert [one.is_mirror for one in found] == [True, False]


def test_name_that_a_mirror_makes_too_long_is_an_error() -> None:
    with pytest.raises(InvalidReferenceError, match="longer than 255"):
        candidates({"r.test": [f"m.test/{'a' * 250}"]}, "r.test/web:1")
