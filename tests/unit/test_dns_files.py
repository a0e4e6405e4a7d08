from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from fargate_agent.network.dns import (
    read_nameservers,
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
    text = render_resolv_conf(DNS)

    assert text == "nameserver 10.0.0.2\nnameserver fd00::2\nsearch ec2.internal lab\n"


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
        pytest.param("nameserver 127.0.0.53\noptions edns0", ("127.0.0.53",), id="a stub"),
        pytest.param("nameserver\nnameserver wrong", (), id="nothing usable"),
        pytest.param("nameserver fe80::1%eth0\n", ("fe80::1%eth0",), id="with a zone"),
    ],
)
def test_name_servers_of_the_machine_are_read(
    text: str, servers: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(text)

    assert read_nameservers(file) == servers


def test_machine_without_the_file_has_no_name_server(tmp_path: Path) -> None:
    assert read_nameservers(tmp_path / "absent") == ()
