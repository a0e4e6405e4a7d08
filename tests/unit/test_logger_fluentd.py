"""What the fluentd driver writes, read by the msgpack library; and its flags."""

import io
from typing import Any

import msgpack
import pytest

from destinations.to_fluentd import Entries, Fluentd, make
from reading.deadline import Deadline
from reading.lines import Lines
from sending.destination import Setup
from sending.reports import Reports

NOW_NS = 1_767_607_207_123_456_789
FLAGS = {"container-id": "0123456789abcdef" * 4, "container-name": "web"}


def render(lines: Lines, **flags: str) -> list[Any]:
    """Return the messages."""
    more = {name.replace("_", "-"): value for name, value in flags.items()}
    entries = Entries(FLAGS | more)
    data = b"".join(entries.render(lines, lines.text.split(b"\n")))
    return list(msgpack.Unpacker(io.BytesIO(data), raw=False, unicode_errors="surrogateescape"))


def make_fluentd(**flags: str) -> Fluentd:
    more = {name.replace("_", "-"): value for name, value in flags.items()}
    setup = Setup(FLAGS | more, Deadline(), Reports("fluentd", "c-1", None), None)
    return make(setup)


def test_line_is_a_message_with_its_record() -> None:
    messages = render(Lines("stderr", NOW_NS, b"hello"))

    tag, moment, record, option = messages[0]
    assert tag == "0123456789ab"
    assert moment == msgpack.ExtType(0, b"\x69\x5b\x8b\xa7" + (123_456_789).to_bytes(4))
    assert record == {
        "container_id": FLAGS["container-id"],
        "container_name": "web",
        "source": "stderr",
        "log": "hello",
    }
    assert option == {}


def test_time_is_a_number_of_seconds_without_sub_second_precision() -> None:
    messages = render(Lines("stdout", NOW_NS, b"x"), fluentd_sub_second_precision="false")

    assert messages[0][1] == NOW_NS // 10**9


def test_each_line_is_a_message() -> None:
    messages = render(Lines("stdout", NOW_NS, b"a\n\nb"))

    assert [message[2]["log"] for message in messages] == ["a", "", "b"]


@pytest.mark.parametrize("size", [0, 31, 32, 255, 256, 16 * 1024])
def test_line_of_any_length_arrives_whole(size: int) -> None:
    messages = render(Lines("stdout", NOW_NS, b"x" * size))

    assert messages[0][2]["log"] == "x" * size


def test_line_that_is_not_utf_8_arrives_as_it_is() -> None:
    messages = render(Lines("stdout", NOW_NS, b"\xff\0\xfe"))

    assert messages[0][2]["log"].encode(errors="surrogateescape") == b"\xff\0\xfe"


@pytest.mark.parametrize(("last", "text"), [(True, "true"), (False, "false")])
def test_piece_of_a_line_says_which_one(last: bool, text: str) -> None:
    messages = render(Lines("stdout", NOW_NS, b"x", ("f" * 64, 3, last)))

    record = messages[0][2]
    assert {key: value for key, value in record.items() if key.startswith("partial")} == {
        "partial_message": "true",
        "partial_id": "f" * 64,
        "partial_ordinal": "3",
        "partial_last": text,
    }
    assert record["log"] == "x"


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        pytest.param("web-firelens-0123", "web-firelens-0123", id="plain"),
        pytest.param("x.{{.Name}}.{{.ID}}", "x.web.0123456789ab", id="template"),
        pytest.param("t" * 300, "t" * 300, id="long"),
    ],
)
def test_tag_can_be_chosen(tag: str, expected: str) -> None:
    assert render(Lines("stdout", NOW_NS, b"x"), fluentd_tag=tag)[0][0] == expected


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.0.0.1:24224",
        "tcp://h.test:1",
        "tls://h.test",
        "unix:///run/a.sock",
        "[::1]:9",
    ],
)
def test_address_has_one_of_three_schemes(address: str) -> None:
    make_fluentd(fluentd_address=address)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"fluentd_address": "udp://h:1"}, "unsupported scheme 'udp' in address 'udp://h:1'"),
        ({"fluentd_address": "tcp://h:1/path"}, "invalid address 'tcp://h:1/path'"),
        ({"fluentd_address": "h:0"}, "invalid port in address 'h:0'"),
        ({"fluentd_address": "h:65536"}, "invalid port in address 'h:65536'"),
        ({"fluentd_address": "unix://a"}, "path of a socket expected in address 'unix://a'"),
        ({"fluentd_async": "maybe"}, "invalid value for fluentd-async: 'maybe'"),
        ({"fluentd_buffer_limit": "many"}, "invalid size: 'many'"),
        ({"fluentd_write_timeout": "5"}, "invalid duration: '5'"),
        ({"fluentd_tag": "{{.What}}"}, "unsupported log tag '{{.What}}'"),
        (
            {"fluentd_async_reconnect_interval": "11s"},
            r"value \(11s\) must be between 100ms and 10s",
        ),
    ],
    ids=lambda value: "-".join(value.values()).replace("/", "") if isinstance(value, dict) else "",
)
def test_wrong_flag_is_an_error(flags: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_fluentd(**flags)


@pytest.mark.parametrize(
    ("limit", "lines"), [("-1", 1_048_576), ("8m", 8 * 1024 * 1024), ("100", 100)]
)
def test_buffer_limit_is_a_number_of_lines(limit: str, lines: int) -> None:
    assert make_fluentd(fluentd_buffer_limit=limit).max_waiting_lines == lines
