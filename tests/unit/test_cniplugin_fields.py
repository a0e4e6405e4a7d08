"""Fields of configurations, and results of every version."""

import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from fargate_agent.cniplugins.errors import DECODE_FAILURE, INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.results import (
    Dns,
    Interface,
    Ip,
    Result,
    Route,
    parse_result,
    render_result,
)
from fargate_agent.cniplugins.versions import VERSIONS

FULL = Result(
    (Interface("br0", "02:00:00:00:00:01"), Interface("eth0", "", "/run/netns/a", 1400)),
    (
        Ip(ip_interface("10.0.0.5/24"), ip_address("10.0.0.1"), 1),
        Ip(ip_interface("2001:db8::5/64")),
    ),
    (Route(ip_network("0.0.0.0/0"), ip_address("10.0.0.1"), 1400, 1360, 5, 100, 0),),
    Dns(("10.0.0.2",), "example", ("a.example", "b.example"), ("ndots:2",)),
)


def test_names_count_without_their_case_and_the_right_one_comes_first() -> None:
    fields = Fields({"Bridge": "a", "bridge": "b", "enableIPV4": True, "mtu": None})

    assert fields.text("bridge") == "b"
    assert fields.flag("enableIPv4") is True
    assert fields.number("MTU", 9) == 9
    assert not fields.has("mtu")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda fields: fields.text("number"), "number has to be a string"),
        (lambda fields: fields.number("flag"), "flag has to be a number"),
        (lambda fields: fields.number("text"), "text has to be a number"),
        (lambda fields: fields.flag("number"), "flag_number has to be"),
        (lambda fields: fields.texts("mixed"), "mixed has to be a list of strings"),
        (lambda fields: fields.list_of_fields("mixed"), "mixed has to be a list of objects"),
        (lambda fields: fields.fields("text"), "text has to be an object"),
        (lambda fields: fields.fields("inner").text("x"), "inner.x has to be a string"),
    ],
)
def test_a_wrong_type_is_told_by_its_place(read: Any, message: str) -> None:
    fields = Fields({"number": 1, "flag": True, "text": "t", "mixed": ["a", 1], "inner": {"x": 1}})

    with pytest.raises(CniError) as caught:
        read(fields)

    assert caught.value.code == DECODE_FAILURE
    assert caught.value.message.startswith(message.replace("flag_number", "number"))


def test_what_has_to_be_there_is_told() -> None:
    with pytest.raises(CniError, match="missing required parameter ipam.type") as caught:
        Fields({"ipam": {}}).fields("ipam").required("type")

    assert caught.value.code == INVALID_CONFIG


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_is_read_as_it_was_written(version: str) -> None:
    rendered = json.loads(json.dumps(render_result(FULL, version)))

    first, second = FULL.interfaces
    known = (
        FULL if version == "1.1.0" else FULL._replace(interfaces=(first, second._replace(mtu=0)))
    )
    assert parse_result(rendered) == known
    assert rendered["cniVersion"] == version
    assert [one.get("version") for one in rendered["ips"]] == (
        [None, None] if version >= "1" else ["4", "6"]
    )


def test_names_of_a_result_count_without_their_case() -> None:
    parsed = parse_result({"IPs": [{"Address": "10.0.0.5/24"}]})

    assert parsed.ips == (Ip(ip_interface("10.0.0.5/24")),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ips": [{"address": "10.0.0.5"}]},
        {"ips": [{"address": "10.0.0.5/33"}]},
        {"ips": [{"address": "10.0.0.5/24", "gateway": "x"}]},
        {"ips": [{}]},
        {"routes": [{"dst": "10.0.0.0"}]},
        {"interfaces": {}},
        {"dns": []},
    ],
)
def test_what_is_no_result_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CniError):
        parse_result(wrong)
