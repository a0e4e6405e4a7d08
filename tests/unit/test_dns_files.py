from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from fargate_agent.network.dns import (
    read_host_nameservers,
    render_hostname,
    render_hosts,
    render_resolv_conf,
)
from fargate_agent.plan import DnsPlan
from tests.fixtures.network import MakeEni

DNS = DnsPlan(
    servers=("10.0.0.2", "fd00::2"), search=("ec2.internal", "lab"), hostname="ip-10-0-0-5"
)


def test_resolv_conf_names_each_server_and_one_search_list() -> None:
    text = render_resolv_conf(DNS, fallback=("192.0.2.53",))

    assert text == "nameserver 10.0.0.2\nnameserver fd00::2\nsearch ec2.internal lab\n"


def test_resolv_conf_names_the_fallback_when_the_plan_names_no_server() -> None:
    dns = DnsPlan(servers=(), search=(), hostname="web")

    assert render_resolv_conf(dns, fallback=("192.0.2.53",)) == "nameserver 192.0.2.53\n"


def test_hosts_holds_the_loopback_and_the_primary_address_only(make_eni: MakeEni) -> None:
    first = make_eni(address=IPv4Interface("10.0.0.5/24"))
    second = make_eni(address=IPv4Interface("10.0.1.5/24"), primary=False)

    assert render_hosts(DNS, (first, second)) == "127.0.0.1 localhost\n10.0.0.5 ip-10-0-0-5\n"


def test_hostname_is_one_line() -> None:
    assert render_hostname(DNS) == "ip-10-0-0-5\n"


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        pytest.param("nameserver 192.0.2.1\nnameserver 192.0.2.2", ("192.0.2.1", "192.0.2.2")),
        pytest.param("# nameserver 192.0.2.9\n;x\nsearch a b\n", (), id="none named"),
        pytest.param("nameserver 127.0.0.53\noptions edns0", (), id="a stub on the loopback"),
        pytest.param("nameserver ::1\nnameserver\nnameserver wrong", (), id="nothing usable"),
        pytest.param("nameserver fe80::1%eth0\n", ("fe80::1%eth0",), id="with a zone"),
    ],
)
def test_host_nameservers_are_those_a_task_can_reach(
    text: str, servers: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(text)

    assert read_host_nameservers([file]) == servers


def test_host_nameservers_come_from_behind_the_stub(tmp_path: Path) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\n")
    real.write_text("nameserver 192.0.2.1\n")

    assert read_host_nameservers([tmp_path / "absent", stub, real]) == ("192.0.2.1",)
