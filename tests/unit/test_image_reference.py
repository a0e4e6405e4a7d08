import pytest

from fargate_agent.image.reference import InvalidReferenceError, parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param("nginx", "docker.io/library/nginx:latest", id="short"),
        pytest.param("nginx:1.27", "docker.io/library/nginx:1.27", id="short-with-tag"),
        pytest.param("team/web", "docker.io/team/web:latest", id="two-parts"),
        pytest.param("docker.io/nginx", "docker.io/library/nginx:latest", id="hub-in-full"),
        pytest.param("index.docker.io/a/b", "docker.io/a/b:latest", id="old-name-of-the-hub"),
        pytest.param("host:5000/web", "host:5000/web:latest", id="port"),
        pytest.param("localhost/web:1", "localhost/web:1", id="localhost"),
        pytest.param("10.0.0.1:5000/a/b/c:1", "10.0.0.1:5000/a/b/c:1", id="address"),
        pytest.param("[fd00::1]:5000/web", "[fd00::1]:5000/web:latest", id="ipv6-address"),
        pytest.param(f"registry.test/web@{DIGEST}", f"registry.test/web@{DIGEST}", id="digest"),
        pytest.param(f"web:1@{DIGEST}", f"docker.io/library/web:1@{DIGEST}", id="tag-and-digest"),
        pytest.param("a__b/c-d.e:X_1", "docker.io/a__b/c-d.e:X_1", id="separators"),
    ],
)
def test_reference_is_completed_as_docker_does(text: str, name: str) -> None:
    assert parse_reference(text).name == name


def test_hub_is_asked_under_the_name_of_its_api() -> None:
    assert parse_reference("nginx").api_host == "registry-1.docker.io"
    assert parse_reference("host:5000/nginx").api_host == "host:5000"


def test_digest_wins_over_the_tag() -> None:
    assert parse_reference(f"web:1@{DIGEST}").selector == DIGEST


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("Web", id="capital"),
        pytest.param("registry.test/", id="no-repository"),
        pytest.param("web:", id="empty-tag"),
        pytest.param("web:a b", id="blank"),
        pytest.param("web@", id="empty-digest"),
        pytest.param("web@sha256:abc", id="short-digest"),
        pytest.param("web@md5:" + "a" * 32, id="other-digest"),
        pytest.param("../web", id="dots"),
        pytest.param("registry.test/a//b", id="two-slashes"),
        pytest.param("registry.test:99999/web", id="port-too-high"),
        pytest.param("[::::]/web", id="bad-ipv6"),
        pytest.param("http://registry.test/web", id="url"),
        pytest.param("user@registry.test/web", id="user"),
        pytest.param("web:1\n", id="line-break"),
        pytest.param("a/" * 127 + "aa", id="too-long"),
    ],
)
def test_what_names_no_image_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_reference(text)
