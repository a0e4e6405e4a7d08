"""What `fargate doctor` says of packet filters of other programs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fargate_agent.machine.packet_filter import find_filter_faults
from fargate_agent.network.names import host_end_prefix, name_instance

pytestmark = pytest.mark.root


def nft(*arguments: str) -> None:
    subprocess.run(["nft", *arguments], capture_output=True, check=True)


@pytest.fixture
def docker() -> Iterator[list[str]]:
    """A table as Docker's is, of iptables."""
    nft(
        "add table ip filter; add chain ip filter FORWARD"
        " { type filter hook forward priority 0; policy drop; }"
    )
    yield ["ip", "filter", "FORWARD"]
    nft("delete", "table", "ip", "filter")


def test_doctor_finds_a_table_that_drops_what_tasks_send(tmp_path: Path, docker: list[str]) -> None:
    ends = host_end_prefix(name_instance(tmp_path))

    (finding,) = find_filter_faults(tmp_path, ())

    assert finding.what == "chain FORWARD of table ip filter drops what no rule accepts"
    assert f"`iptables -I FORWARD -i {ends}+ -j ACCEPT`" in finding.effect

    nft("insert", "rule", *docker, "iifname", f'"{ends}*"', "accept")
    nft("insert", "rule", *docker, "oifname", f'"{ends}*"', "accept")
    assert list(find_filter_faults(tmp_path, ())) == []


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(['iifname "ENDS*" accept'], id="one direction"),
        pytest.param(['iifname "ENDS*" accept', 'oifname "ENDS*" drop'], id="one is dropped"),
        pytest.param(['iifname "ENDS*" accept', 'oifname != "ENDS*" accept'], id="all others"),
        pytest.param(['iifname "ENDS*" accept', 'oifname "ENDS" accept'], id="another interface"),
        pytest.param(['iifname "ENDS*" oifname "ENDS*" accept'], id="tasks reach each other only"),
    ],
)
def test_doctor_trusts_a_table_only_if_it_accepts_both_directions(
    tmp_path: Path, docker: list[str], rules: list[str]
) -> None:
    ends = host_end_prefix(name_instance(tmp_path))
    for rule in rules:
        nft(*f"add rule {' '.join(docker)} {rule.replace('ENDS', ends)}".split())

    (finding,) = find_filter_faults(tmp_path, ())

    assert finding.what == "chain FORWARD of table ip filter drops what no rule accepts"


def test_doctor_finds_rules_in_a_chain_that_the_first_one_jumps_to(
    tmp_path: Path, docker: list[str]
) -> None:
    nft("add chain ip filter DOCKER-USER; add rule ip filter FORWARD jump DOCKER-USER")
    for way in ("iifname", "oifname"):
        nft("add", "rule", "ip", "filter", "DOCKER-USER", way, '"fg*"', "counter", "accept")

    assert list(find_filter_faults(tmp_path, ())) == []


def test_doctor_looks_at_input_if_ports_of_the_host_are_open(tmp_path: Path) -> None:
    nft(
        "add table inet fw; add chain inet fw input"
        " { type filter hook input priority 0; policy drop; }"
    )
    try:
        assert list(find_filter_faults(tmp_path, ())) == []
        (finding,) = find_filter_faults(tmp_path, ("5432",))
    finally:
        nft("delete", "table", "inet", "fw")

    assert finding.what == "chain input of table inet fw drops what no rule accepts"
    assert "host_ports 5432" in finding.effect
