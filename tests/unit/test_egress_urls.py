import pytest
from yarl import URL

from fargate_agent.egress.urls import host_of, origin_of, parse_url, resolve_url, shown

BASE = URL("http://registry.test:5000/v2/a/blobs/x")
SIGNED = "X-Amz-Credential=AKIA%2F2025%2Fs3&sig=a%2Bb%3D%3d&t=~x%7Ey&p=%20q+r&c=a:b,c;d'(e)"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"https://store.test/a%2fb/%7Ec?{SIGNED}", id="signed"),
        pytest.param("https://store.test//a/../b/./c?x=//", id="path as it is"),
        pytest.param("http://[fd00::1]:5000/a", id="IPv6"),
    ],
)
def test_absolute_url_stays_byte_for_byte(text: str) -> None:
    assert str(resolve_url(BASE, text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("/s%2Ft?x=%7E", "http://registry.test:5000/s%2Ft?x=%7E", id="path"),
        pytest.param("y?z", "http://registry.test:5000/v2/a/blobs/y?z", id="relative"),
        pytest.param("//o.test/y?z=%2F", "http://o.test/y?z=%2F", id="host"),
        pytest.param("?x=1", "http://registry.test:5000/v2/a/blobs/x?x=1", id="query"),
        pytest.param('https://o.test/a b?c=é"<', "https://o.test/a%20b?c=%C3%A9%22%3C", id="bad"),
        pytest.param("https://o.test/a?b#c?d", "https://o.test/a?b", id="fragment"),
        pytest.param(" https://o.test/a ", "https://o.test/a", id="space around it"),
        pytest.param("https://o.test", "https://o.test/", id="no path"),
    ],
)
def test_location_is_resolved(text: str, expected: str) -> None:
    assert resolve_url(BASE, text) == URL(expected, encoded=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/token",
        "https:///token",
        "https://",
        "http://h:99999/",
        "http://h:abc/",
        "http://[x/",
        "ftp://h/x",
        "file:///etc/passwd",
        "http://a b/",
        "http://ü.test/",
        "http://%00/",
        "javascript:x",
    ],
)
def test_what_is_no_absolute_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_url(text)


def test_origins_differ_by_scheme_host_and_port_alone() -> None:
    assert origin_of(URL("http://A.test/x")) == origin_of(URL("http://a.test:80/y?z"))
    assert origin_of(URL("http://a.test/")) != origin_of(URL("https://a.test/"))
    assert origin_of(URL("http://a.test/")) != origin_of(URL("http://a.test:81/"))


def test_host_is_named_as_people_write_it() -> None:
    assert host_of(URL("https://A.test:443/x")) == "a.test"
    assert host_of(URL("http://[::1]:5000/x")) == "[::1]:5000"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("https://u:p@h:5/a?sig=1#f", "https://h:5/a", id="all"),
        pytest.param("https://u:p@h@i/a@b", "https://i/a@b", id="two at"),
        pytest.param("http://h:99999/a?s", "http://h:99999/a", id="port"),
        pytest.param("/token?x=secret", "/token", id="relative"),
        pytest.param("//u:p@h/x", "//h/x", id="no scheme"),
        pytest.param("http://[x?secret", "http://[x", id="brackets"),
        pytest.param("a\nb\x1b[1m\udcff", "a?b?[1m?", id="not printable"),
        pytest.param("", "", id="empty"),
    ],
)
def test_url_is_shown_without_secrets_whatever_it_is(text: str, expected: str) -> None:
    assert shown(text).rstrip("?") == expected.rstrip("?")
