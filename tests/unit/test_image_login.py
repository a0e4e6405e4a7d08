import pytest
from multidict import CIMultiDict

from fargate_agent.image.registry.login import (
    MAX_CHALLENGE_CHARS,
    MAX_CHALLENGE_FIELDS,
    parse_challenges,
    read_challenges,
)

URL = "https://auth.test/token?tenant=a%2Fb"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([""], [], id="empty"),
        pytest.param(["Bearer"], [("bearer", {})], id="bare"),
        pytest.param(
            [f'Bearer realm="{URL}",service="s",scope="a,b c"'],
            [("bearer", {"realm": URL, "service": "s", "scope": "a,b c"})],
            id="usual",
        ),
        pytest.param(
            ['BEARER ReAlM="r",SERVICE="S"'],
            [("bearer", {"realm": "r", "service": "S"})],
            id="any case; values keep theirs",
        ),
        pytest.param(
            ['Bearer realm = "r" ,\tservice\t=\ts'],
            [("bearer", {"realm": "r", "service": "s"})],
            id="spaces",
        ),
        pytest.param(
            [f"Bearer realm={URL},service=s"],
            [("bearer", {"realm": URL, "service": "s"})],
            id="a URL without quotes",
        ),
        pytest.param(
            [r'Bearer realm="a\"b\\c",service="s"'],
            [("bearer", {"realm": r'a"b\c', "service": "s"})],
            id="escapes",
        ),
        pytest.param(
            ['Basic realm="x, Bearer realm=y", Bearer realm="z"'],
            [("basic", {"realm": "x, Bearer realm=y"}), ("bearer", {"realm": "z"})],
            id="two in a field, a comma in quotes",
        ),
        pytest.param(
            ['Bearer realm="r",service="s", Basic realm="x", charset="UTF-8"'],
            [
                ("bearer", {"realm": "r", "service": "s"}),
                ("basic", {"realm": "x", "charset": "UTF-8"}),
            ],
            id="each has its own parameters",
        ),
        pytest.param(
            ["Negotiate", 'Bearer realm="r"'],
            [("negotiate", {}), ("bearer", {"realm": "r"})],
            id="two fields",
        ),
        pytest.param(
            ['Negotiate YII/a+b==, Bearer realm="r"'],
            [("negotiate", {}), ("bearer", {"realm": "r"})],
            id="token68",
        ),
        pytest.param(
            [', ,Bearer realm="r",,service=s,'],
            [("bearer", {"realm": "r", "service": "s"})],
            id="empty elements",
        ),
        pytest.param(
            ["Bearer realm=,service=s"],
            [("bearer", {"realm": "", "service": "s"})],
            id="empty value",
        ),
        pytest.param(
            ['Bearer realm="r",realm="other"'], [("bearer", {"realm": "r"})], id="first of two"
        ),
        pytest.param(['realm="r"'], [], id="no scheme"),
        pytest.param(['Bearer realm="r'], [("bearer", {})], id="quote without an end"),
        pytest.param(
            ['Bearer service=s,realm="a"b",scope=x'],
            [("bearer", {"service": "s"})],
            id="quote in quotes: the last is open, and takes the rest",
        ),
        pytest.param(
            ['Bearer @[;], realm="r"'], [("bearer", {"realm": "r"})], id="what is neither"
        ),
    ],
)
def test_challenges_are_read(fields: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    found = [(each.scheme, dict(each.parameters)) for each in parse_challenges(fields)]

    assert found == expected


PIECES = ['"', "a=", "\\", '\\"', 'a="', "a ", "=,", " ", "\t", "a", '"a']


@pytest.mark.parametrize("start", ["", 'a="', "a=", "a", 'b="c"'])
@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("end", ["", '"x'])
def test_time_of_a_field_grows_with_its_length(start: str, piece: str, end: str) -> None:
    """Where each character was compared with all before it, one of these takes minutes."""
    parse_challenges([f"Bearer {start}{piece * 50_000}{end}"])


def test_of_many_fields_the_first_are_read() -> None:
    headers = CIMultiDict(("www-authenticate", f"s{n}") for n in range(MAX_CHALLENGE_FIELDS + 1))

    found = [each.scheme for each in read_challenges(headers)]

    assert found == [f"s{n}" for n in range(MAX_CHALLENGE_FIELDS)]


def test_a_field_that_is_too_long_is_passed_over() -> None:
    fields = ["Bearer", "x" * MAX_CHALLENGE_CHARS, "y" * (MAX_CHALLENGE_CHARS + 1), "Basic"]
    headers = CIMultiDict(("WWW-Authenticate", field) for field in fields)

    found = [each.scheme for each in read_challenges(headers)]

    assert found == ["bearer", "x" * MAX_CHALLENGE_CHARS, "basic"]
