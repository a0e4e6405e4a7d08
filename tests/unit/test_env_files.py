"""Which variables a file of variables has."""

import pytest

from fargate_agent.secrets.env_files import EnvFileError, parse_env_file
from fargate_agent.secrets.objects import ObjectReference, parse_object
from fargate_agent.secrets.references import InvalidReferenceError


@pytest.mark.parametrize(
    ("content", "variables"),
    [
        pytest.param(b"A=1\nB=2\n", {"A": "1", "B": "2"}, id="plain"),
        pytest.param(b"A=1\nB=2", {"A": "1", "B": "2"}, id="no newline at the end"),
        pytest.param(b"A=1\r\nB=2\r\n", {"A": "1", "B": "2"}, id="CRLF"),
        pytest.param(b"A=1\rB=2\n", {"A": "1\rB=2"}, id="a return in the middle is of the value"),
        pytest.param(b"\xef\xbb\xbfA=1\n", {"A": "1"}, id="byte order mark"),
        pytest.param(b"#A=1\n# B=2\nC=3\n", {"C": "3"}, id="comments"),
        pytest.param(b" #A=1\n", {" #A": "1"}, id="no comment unless it is the first character"),
        pytest.param(b"A=1 # no comment\n", {"A": "1 # no comment"}, id="no comment behind"),
        pytest.param(b"A=b=c==\n", {"A": "b=c=="}, id="first equals sign"),
        pytest.param(b"A=\n", {"A": ""}, id="empty value"),
        pytest.param(b"=1\n\nA\n  \n", {}, id="no name, no sign, nothing"),
        pytest.param(b"A='x y'\nB=\"$A\\n\"\n", {"A": "'x y'", "B": '"$A\\n"'}, id="verbatim"),
        pytest.param(b" A = 1 \n", {" A ": " 1 "}, id="blanks stay"),
        pytest.param(b"export A=1\n", {"export A": "1"}, id="no shell"),
        pytest.param(b"A=1\nA=2\n", {"A": "2"}, id="the last of a file"),
        pytest.param("A=grün\x85 \u2028x\n".encode(), {"A": "grün\x85 \u2028x"}, id="UTF-8"),
        pytest.param(b"A=\x0b\x0c\x1c\n", {"A": "\x0b\x0c\x1c"}, id="only newlines end lines"),
        pytest.param(b"", {}, id="nothing"),
    ],
)
def test_file_is_read(content: bytes, variables: dict[str, str]) -> None:
    assert parse_env_file(content) == variables


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(b"A=1\nB=geheim\xff\n", "line 2 is not UTF-8", id="not UTF-8"),
        pytest.param(b"A=geheim\0\n", "line 1 has a NUL character", id="NUL"),
    ],
)
def test_file_that_holds_what_no_variable_can_is_refused(content: bytes, text: str) -> None:
    with pytest.raises(EnvFileError) as error:
        parse_env_file(content)

    assert str(error.value) == text


def test_object_is_named_by_its_arn() -> None:
    reference = parse_object("arn:aws-cn:s3:::my.bucket/a/b c.env")

    assert reference == ObjectReference(bucket="my.bucket", key="a/b c.env")


@pytest.mark.parametrize(
    "arn",
    [
        "s3://b/k",
        "arn:aws:s3:::b",
        "arn:aws:s3:::b/",
        "arn:aws:s3",
        "arn:aws:s3:::b/\0",
        "arn:aws:s3:::b/\ud800",
    ],
)
def test_what_is_no_object_is_refused(arn: str) -> None:
    with pytest.raises(InvalidReferenceError, match="is no object of S3"):
        parse_object(arn)
