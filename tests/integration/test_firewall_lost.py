"""A table of the packet filter that has gone when much of it is to be changed."""

import subprocess
import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from fargate_agent.network.firewall import owned
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.memory import FILE
from fargate_agent.network.firewall.owned import OwnedTable
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.names import firewall_table_name
from fargate_agent.network.nft import connection
from fargate_agent.plan.security_groups import GroupPlan, RulePlan
from tests.fixtures.network import MakeEni

pytestmark = pytest.mark.root


@pytest.mark.parametrize("factor", [0, connection.ANSWERS_FACTOR])
async def test_a_large_change_makes_a_table_again_that_somebody_has_removed(
    instance: str,
    tmp_path: Path,
    host_left_clean: None,
    make_eni: MakeEni,
    monkeypatch: pytest.MonkeyPatch,
    factor: int,
) -> None:
    """Each of its parts is refused, and what says so may not have room."""
    monkeypatch.setattr(owned, "OWNER", 0)  # a kernel before 6.9
    monkeypatch.setattr(owned, "PERSIST", 0)
    monkeypatch.setattr(connection, "ANSWERS_FACTOR", factor)
    names = tuple(f"sg-{number}" for number in range(5))

    def groups(network: int) -> list[GroupPlan]:
        rules = (
            RulePlan(protocol="tcp", from_port=port, to_port=port, cidrs=(IPv4Network(cidr),))
            for port in range(1, 200)
            for cidr in [f"10.{network}.{port}.0/24"]
        )
        ingress = tuple(rules)
        return [GroupPlan(id=name, ingress=ingress) for name in names]

    table = firewall_table_name(instance)

    def count_rules(text: str) -> list[int]:
        return [read(f"in_{name}").count(text) for name in names]

    def read(chain: str) -> str:
        command = ["nft", "list", "chain", "inet", table, chain]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    async with HostFirewall(instance, tmp_path / FILE, FirewallSettings()) as firewall:
        await firewall.learn(groups(1))
        await firewall.open_eni(make_eni(security_groups=names))
        subprocess.run(["nft", "delete", "table", "inet", table], check=True)
        threads = note_threads(monkeypatch)

        await firewall.learn(groups(2))

        assert count_rules("ip saddr 10.2.") == [199] * 5
        assert threads, "the table was made again"
        assert threading.main_thread() not in threads, "the event loop stands still"

        await firewall.learn(groups(3))

        assert count_rules("ip saddr 10.3.") == [199] * 5
        await firewall.release()


def note_threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Return the threads in which tables are made from now on."""
    threads: list[threading.Thread] = []
    replace_table = OwnedTable.replace

    def replace_and_note(self: OwnedTable, render: Callable[[], Iterable[bytes]]) -> None:
        threads.append(threading.current_thread())
        replace_table(self, render)

    monkeypatch.setattr(OwnedTable, "replace", replace_and_note)
    return threads
