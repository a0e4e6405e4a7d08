"""NAT for the subnets of ENIs: what they send to other networks has the host's address."""

from collections import defaultdict
from collections.abc import Collection

from fargate_agent.findings import Findings
from fargate_agent.network import nftables
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.names import host_end_prefix, nat_table_name, ours_prefix
from fargate_agent.network.nftables import Network
from fargate_agent.plan import EniPlan
from fargate_agent.threads import in_thread


class Masquerade:
    """A table for each subnet, as long as it has ENIs."""

    def __init__(self, instance: str, findings: Findings) -> None:
        """`instance` tells this agent from others on the machine."""
        self._instance = instance
        self._findings = findings
        self._users: defaultdict[str, set[str]] = defaultdict(set)

    async def ensure(self) -> None:
        """Nothing is kept from passing."""

    async def open_eni(self, eni: EniPlan) -> None:
        """Hide the ENI's subnets behind the host's addresses.

        A kernel without a packet filter is noted.
        """
        for table, subnet in self._tables(eni).items():
            self._users[table].add(eni.id)
            try:
                if not nftables.table_exists(table, subnet.version):
                    siblings = host_end_prefix(self._instance)
                    await in_thread(nftables.add_masquerade, table, subnet, siblings)
            except (NetlinkError, OSError) as error:
                self._findings.note(
                    f"addresses can't be translated: no nftables on this machine ({error})",
                    "tasks reach each other, but no other network",
                )

    async def close_eni(self, eni: EniPlan) -> None:
        """Take the tables of a subnet away with its last ENI."""
        for table in self._tables(eni):
            self._users[table].discard(eni.id)
            if not self._users[table]:
                try:
                    await in_thread(nftables.delete_tables, table)
                except NetlinkError:  # no packet filter, no NAT
                    return

    async def note_uplinks(self, names: Collection[str]) -> None:
        """Nothing is kept from passing."""

    def _tables(self, eni: EniPlan) -> dict[str, Network]:
        prefix = nat_table_name(f"{ours_prefix(self._instance)}n")
        subnets: list[Network] = [eni.address.network]
        if eni.ipv6_address is not None:
            subnets.append(eni.ipv6_address.network)
        return {f"{prefix}-{subnet.network_address}": subnet for subnet in subnets}
