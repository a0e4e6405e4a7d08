import socket
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from fargate_agent.cli.failure import CliError
from fargate_agent.cli.stack.claims import Claims
from fargate_agent.cli.stack.ports import choose_listen, client_url, parse_listen
from fargate_agent.cli.stack.ranges import (
    Route,
    choose_range,
    parse_addresses,
    parse_routes,
    read_routes,
)

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t0000000A\t00000000\t0200\t0\t0\t0\t000000FF\t0\t0\t0
fgbr0\t0000000A\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0
"""
TRIE = """\
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.7.0.1
        /32 host LOCAL
     |-- 10.7.15.255
        /32 link BROADCAST
"""
DEFAULT = IPv4Network("10.0.0.0/16")
NEXT = IPv4Network("10.1.0.0/16")


def take_all(_: object) -> bool:
    return True


def test_routes_are_read_without_those_that_lead_nowhere() -> None:
    routes = list(parse_routes(ROUTES, {"fgbr0"}))

    assert routes == [
        Route(IPv4Network("192.0.2.0/24"), "eth0"),
        Route(IPv4Network("10.0.0.0/20"), "fgbr0", is_bridge=True),
    ]


def test_addresses_are_those_of_the_host_alone() -> None:
    assert [route.network for route in parse_addresses(TRIE)] == [IPv4Network("10.7.0.1/32")]


def test_routes_of_this_machine_hold_its_loopback_address() -> None:
    assert IPv4Network("127.0.0.1/32") in [route.network for route in read_routes()]


@pytest.mark.parametrize(
    ("remembered", "routes", "chosen"),
    [
        pytest.param(None, [], DEFAULT, id="nothing in the way"),
        pytest.param(None, [Route(IPv4Network("192.168.0.0/16"), "e")], DEFAULT, id="elsewhere"),
        pytest.param(None, [Route(IPv4Network("10.0.3.0/24"), "e")], NEXT, id="a smaller route"),
        pytest.param(
            None,
            [Route(IPv4Network("10.0.0.0/15"), "e")],
            IPv4Network("10.2.0.0/16"),
            id="a larger route",
        ),
        pytest.param(
            None,
            [Route(IPv4Network("10.0.0.0/8"), "vpn")],
            IPv4Network("172.16.0.0/16"),
            id="all of 10",
        ),
        pytest.param(NEXT, [], NEXT, id="remembered"),
        pytest.param(
            NEXT,
            [
                Route(IPv4Network("10.1.0.0/20"), "fgbr0", is_bridge=True),
                Route(IPv4Network("10.1.0.1/32"), "an address of this host"),
            ],
            NEXT,
            id="our own tasks still run",
        ),
        pytest.param(
            NEXT, [Route(IPv4Network("10.1.0.0/24"), "vpn")], DEFAULT, id="remembered, but lost"
        ),
        pytest.param(
            None,
            [Route(IPv4Network("10.0.0.0/20"), "fgbr0", is_bridge=True)],
            NEXT,
            id="tasks of another stack still run",
        ),
    ],
)
def test_range_is_the_first_that_is_free(
    remembered: IPv4Network | None, routes: list[Route], chosen: IPv4Network
) -> None:
    assert choose_range(None, remembered, routes, take_all) == chosen


def test_range_that_another_stack_holds_is_passed_over() -> None:
    assert choose_range(None, None, [], lambda network: network != DEFAULT) == NEXT


def test_range_that_was_asked_for_is_refused_with_what_is_in_the_way() -> None:
    routes = [Route(IPv4Network("10.0.3.0/24"), "tun0")]

    with pytest.raises(CliError, match=r"10\.0\.0\.0/16: overlaps 10\.0\.3\.0/24 \(tun0\)"):
        choose_range(DEFAULT, None, routes, take_all)


def test_range_that_was_asked_for_is_refused_if_another_stack_holds_it() -> None:
    with pytest.raises(CliError, match="another stack"):
        choose_range(DEFAULT, None, [], lambda _: False)


def test_range_is_refused_if_there_is_none() -> None:
    with pytest.raises(CliError, match="name one by --vpc-cidr"):
        choose_range(None, None, [Route(IPv4Network("0.0.0.0/1"), "a")], lambda _: False)


def test_claim_of_a_range_keeps_overlapping_ones_from_others_until_it_ends() -> None:
    small, large = IPv4Network("198.18.0.0/24"), IPv4Network("198.18.0.0/16")
    with Claims() as first, Claims() as second:
        assert first.take_range(small)
        assert not second.take_range(large)
        assert second.take_range(IPv4Network("198.19.0.0/16"))

    with Claims() as third:
        assert third.take_range(large)


def test_claim_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from fargate_agent.cli.stack.claims import Claims; c = Claims();"
        "c.lock(pathlib.Path(sys.argv[1])); print(c.take('test/killed'), flush=True);"
        "sys.stdin.read()"
    )
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", program, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"

        with Claims() as ours:
            assert not ours.take("test/killed")
            with pytest.raises(CliError, match='another "fargate up" runs here'):
                ours.lock(lock)
        other.kill()

    with Claims() as ours:
        assert ours.take("test/killed")
        ours.lock(lock)


def test_listen_is_what_was_asked_for_or_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        url = f"http://127.0.0.1:{busy.getsockname()[1]}"

        with pytest.raises(CliError, match="the port is in use"):
            choose_listen(url, None, take_all)

    assert choose_listen(url, None, take_all) == url


def test_listen_chooses_a_port_for_port_0() -> None:
    host, port = parse_listen(choose_listen("http://127.0.0.1:0", None, take_all))

    assert host == "127.0.0.1"
    assert port > 1023


def test_listen_is_the_default_port_then_the_remembered_one_then_any() -> None:
    remembered = choose_listen("http://127.0.0.1:0", None, take_all)
    others = f"port/{parse_listen(remembered)[1]}"

    assert choose_listen(None, remembered, lambda name: name != "port/51680") == remembered
    assert choose_listen(None, remembered, lambda n: n not in ("port/51680", others)) not in (
        "http://127.0.0.1:51680",
        remembered,
    )


@pytest.mark.parametrize(
    "url", ["127.0.0.1:80", "https://127.0.0.1:80", "http://a", "http://a:b", "http://a:1/x", ""]
)
def test_listen_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(CliError, match=f"--listen {url}: "):
        parse_listen(url)


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://0.0.0.0:1", "http://127.0.0.1:1"),
        ("http://[::]:1", "http://[::1]:1"),
        ("http://192.0.2.1:1", "http://192.0.2.1:1"),
    ],
)
def test_client_url_leads_to_this_machine(listen: str, url: str) -> None:
    assert client_url(listen) == url
