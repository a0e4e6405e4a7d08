"""The packet filter of one agent: its table, the security groups, and who is in them.

Whatever changes is put into the kernel in one transaction, and remembered when that has succeeded.
A table that somebody else has changed or removed is made again as a whole.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from fargate_agent.drivers import SecurityGroups, Service, Sweeper
from fargate_agent.findings import Findings
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.firewall.guards import Guards
from fargate_agent.network.firewall.memory import read_groups, write_groups
from fargate_agent.network.firewall.owned import LOST, OwnedTable
from fargate_agent.network.firewall.rules import VERSIONS, find_named, members_name
from fargate_agent.network.firewall.table import (
    Address,
    FirewallSettings,
    GroupList,
    Network,
    list_groups,
    remove_address,
    render_eni,
    render_group,
    render_group_rules,
    render_list,
    render_ranges,
    render_table,
    render_uplinks,
)
from fargate_agent.network.firewall.watch import Watch
from fargate_agent.network.names import firewall_table_name, ours_prefix
from fargate_agent.network.nft.logged import NO_LOG, NO_LOG_CODES, NO_LOG_EFFECT
from fargate_agent.network.nft.objects import Table
from fargate_agent.network.reasons import kernel_refusals
from fargate_agent.network.routes import addresses_of, ranges_of
from fargate_agent.network.unreachable import has_enis
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan
from fargate_agent.threads import in_thread
from fargate_agent.wire.eni_kinds import EniKind

RESTORED: Final = "another program has changed table %s of the packet filter; it was restored"
RETRY_S: Final = 1.0
"""How long after a failure a table that is lost is made again."""

log = logging.getLogger(__name__)


class HostFirewall(SecurityGroups, Service, Sweeper):
    """Owns the agent's packet filter on the host, and what it knows of security groups."""

    def __init__(
        self,
        instance: str,
        file: Path,
        settings: FirewallSettings,
        findings: Findings | None = None,
    ) -> None:
        """`instance` tells this agent from others on the machine; `file` keeps the groups.

        Touches nothing; the groups are read when they are first needed.
        """
        self._ours: Final = f"{ours_prefix(instance)}v"
        self._file = file
        self._settings = settings
        self._findings = findings or Findings()
        self._table: Final = Table(firewall_table_name(instance))
        self._owned: Final = OwnedTable(self._table)
        self._turn = asyncio.Lock()
        self._is_made = False
        self._watch = Watch(self._table.name, lambda: self._owned.port)
        self._groups: dict[str, GroupPlan] | None = None
        self._enis: dict[str, tuple[tuple[Address, ...], GroupList]] = {}
        """Addresses and groups of the ENIs that are open, by id."""
        self._guards = Guards(self._find, self._members, settings, self._findings)
        self._chains: set[str] = set()
        """Groups that have chains and sets."""
        self._lists: set[GroupList] = set()
        self._ranges: frozenset[Network] = frozenset()
        self._uplinks: dict[int, frozenset[str]] = {}

    async def __aexit__(self, *_: object) -> None:
        """Let go of the table, which stays."""
        self._owned.close()

    async def serve(self) -> None:
        """Make the table again when somebody else has removed or changed it, until cancelled.

        In the end the table goes, unless there are ENIs, of tasks that nobody knows too.
        """
        try:
            await self._keep()
        finally:
            with suppress(NetlinkError):  # the next agent does it
                if not self._is_needed():
                    self._owned.remove()

    def _is_needed(self) -> bool:
        """Whether there are ENIs: such as were opened, or that the host still has a route to."""
        return bool(self._enis) or has_enis(lambda name: name.startswith(self._ours))

    async def _keep(self) -> None:
        with self._watch:
            while True:
                await self._watch.wait()
                try:
                    async with self._turn:
                        if self._is_made:
                            await in_thread(self._rebuild)
                            log.warning(RESTORED, self._table.name)
                except NetlinkError as error:
                    log.error("packet filter of tasks not restored, retrying: %s", error)
                    await asyncio.sleep(RETRY_S)
                    self._watch.repeat()

    async def sweep(self, kept: Collection[str]) -> list[str]:
        """Remove the table if no task is kept."""
        if kept or self._enis:
            return []
        return await self.release()

    async def release(self) -> list[str]:
        """Remove the table, unless it isn't there; return its name if it was."""
        async with self._turn:
            try:
                removed = await in_thread(self._owned.remove)
                self._is_made = False
            except NetlinkError as error:
                log.warning("could not remove the packet filter: %s", error)
                return []
        return [f"table {self._table.name}"] if removed else []

    async def adopt(self, enis: Collection[EniPlan]) -> None:
        with kernel_refusals("packet filter"):
            async with self._turn:
                self._read()
                for eni in enis:
                    if eni.kind is EniKind.VETH:
                        self._remember(eni)
                    else:
                        self._guards.expect(eni)
                is_needed = await in_thread(self._is_needed)
                if enis or is_needed:
                    await in_thread(self._rebuild)

    async def ensure(self) -> None:
        """Return when the table is there.

        Raises:
            NetlinkError: the kernel refused.
        """
        if not self._is_made:
            async with self._turn:
                if not self._is_made:
                    self._read()
                    await in_thread(self._rebuild)

    async def open_eni(self, eni: EniPlan) -> None:
        """Let pass what the groups of a routed ENI allow; repeated, only its groups change.

        Raises:
            NetlinkError: the kernel refused; what was allowed before still is.
        """
        await self.ensure()
        async with self._turn:
            addresses, groups = now = addresses_of(eni), list_groups(eni)
            if (before := self._enis.get(eni.id)) == now:
                return
            kept = set(self._chains), set(self._lists), self._ranges, self._enis
            gone = [k for k, (at, _) in self._enis.items() if k == eni.id or {*at} & {*addresses}]
            messages = [part for one in gone for part in self._render_close(one)]
            self._enis = {one: kept[3][one] for one in kept[3].keys() - gone}
            self._enis[eni.id] = now
            self._ranges |= ranges_of(eni)
            try:
                if kept[2] != self._ranges:
                    messages += render_ranges(self._table, self._ranges)
                messages += self._render_list(groups)
                messages += render_eni(self._table, *now)
                await self._change(messages)
            except BaseException:
                self._chains, self._lists, self._ranges, self._enis = kept
                raise
            if self._guards:
                left = () if before is None else before[1].groups or ()
                await in_thread(self._guards.refresh, {*left, *(groups.groups or ())})

    async def close_eni(self, eni: EniPlan) -> None:
        """Let nothing new of an ENI pass; one that isn't open is fine.

        Raises:
            NetlinkError: the kernel refused.
        """
        async with self._turn:
            if eni.id not in self._enis:
                return
            messages = list(self._render_close(eni.id))
            kept = self._enis.pop(eni.id)
            try:
                if self._is_made:
                    await self._change(messages)
            except BaseException:
                self._enis[eni.id] = kept
                raise
            if self._guards:
                await in_thread(self._guards.refresh, set(kept[1].groups or ()))

    async def guard_netns(self, eni: EniPlan, netns: Path) -> None:
        """Enforce the groups of an ENI that isn't routed, in the namespace where its interface is.

        Repeated, what is enforced is replaced, and open connections go on.

        Raises:
            NetlinkError: the kernel refused; what was enforced before still is.
        """
        async with self._turn:
            self._read()
            before = self._guards.find(eni.id)
            await in_thread(self._guards.put, eni, netns)
            await self._move_member(before, eni)

    async def unguard_netns(self, eni: EniPlan, netns: Path) -> None:
        """Enforce nothing in that namespace any more; one that isn't guarded is fine.

        Raises:
            NetlinkError: the kernel refused.
        """
        async with self._turn:
            before = self._guards.find(eni.id)
            await in_thread(self._guards.remove, eni, netns)
            await self._move_member(before, None)

    async def _move_member(self, before: EniPlan | None, after: EniPlan | None) -> None:
        """Have all know who is in the groups of an ENI that is guarded."""
        one, other = (set(eni.security_groups or ()) if eni else set() for eni in (before, after))
        if moved := one ^ other:
            await in_thread(self._guards.refresh, moved, after.id if after else "")
            if self._is_made and (used := [one for one in moved if one in self._chains]):
                await self._change(part for one in used for part in self._replace_members(one))

    async def note_uplinks(self, uplinks: Mapping[int, Collection[str]]) -> None:
        """Of what comes in by these, of their version of IP, pass on only what is for an ENI.

        Raises:
            NetlinkError: the kernel refused.
        """
        wanted = {version: frozenset(uplinks.get(version, ())) for version in VERSIONS}
        await self.ensure()
        async with self._turn:
            before, self._uplinks = self._uplinks, wanted
            try:
                if wanted != before:
                    await self._change(render_uplinks(self._table, wanted))
            except BaseException:
                self._uplinks = before
                raise

    async def learn(self, groups: Collection[GroupPlan], *, is_whole: bool = False) -> None:
        async with self._turn:
            known = self._read()
            new = {group.id: group for group in groups}
            changed = [group for group in new.values() if known.get(group.id) != group]
            after = new if is_whole else known | new
            gone = known.keys() - after.keys()
            if not changed and not gone:
                return
            before, self._groups = known, after
            chains = set(self._chains)
            try:
                if self._is_made:
                    with kernel_refusals("security groups"):
                        await self._change(self._render_changes(changed, gone), is_large=True)
            except BaseException:
                self._groups, self._chains = before, chains
                raise
            if self._guards:
                await in_thread(self._guards.refresh, {*new, *gone})
            await in_thread(write_groups, self._file, after.values())

    def _read(self) -> dict[str, GroupPlan]:
        if self._groups is None:
            self._groups = read_groups(self._file)
        return self._groups

    def _remember(self, eni: EniPlan) -> None:
        self._enis[eni.id] = (addresses_of(eni), list_groups(eni))
        self._ranges |= ranges_of(eni)

    def _find(self, group_id: str) -> GroupPlan:
        """Return a group; one that nobody has told allows nothing."""
        return self._read().get(group_id) or GroupPlan(id=group_id)

    async def _change(self, messages: Iterable[bytes], *, is_large: bool = False) -> None:
        """Change the table; one that somebody else has changed is made again of what is known."""
        try:
            if is_large:
                await in_thread(self._owned.change, messages)
            else:
                self._owned.change(messages)
        except NetlinkError as error:
            if error.code not in LOST:
                raise
            await in_thread(self._rebuild)

    def _rebuild(self) -> None:
        """Put the whole table in the place of what is there. Blocks, for some milliseconds."""
        try:
            self._owned.replace(self._render_whole)
        except NetlinkError as error:
            if self._settings.log_group is None or error.code not in NO_LOG_CODES:
                raise
            self._settings = replace(self._settings, log_group=None)
            self._owned.replace(self._render_whole)
            self._findings.note(NO_LOG, NO_LOG_EFFECT)
        self._is_made = True

    def _render_whole(self) -> Iterator[bytes]:
        self._chains, self._lists = set(), set()
        yield from render_table(self._table, self._ours, self._settings)
        if self._ranges:
            yield from render_ranges(self._table, self._ranges)
        if self._uplinks:
            yield from render_uplinks(self._table, self._uplinks)
        for addresses, groups in self._enis.values():
            yield from self._render_list(groups)
            yield from render_eni(self._table, addresses, groups)

    def _render_list(self, groups: GroupList) -> Iterator[bytes]:
        if groups in self._lists:
            return
        for group_id in groups.groups or ():
            if group_id not in self._read():
                log.warning("security group %s is not known: it allows nothing", group_id)
            yield from self._render_group(group_id)
        yield from render_list(self._table, groups, self._ours)
        self._lists.add(groups)

    def _render_group(self, group_id: str) -> Iterator[bytes]:
        """Yield what makes a group, and the sets of those that its rules name."""
        if group_id in self._chains:
            return
        yield from self._render_chains(group_id)
        yield from self._render_rules(self._find(group_id))

    def _render_rules(self, group: GroupPlan) -> Iterator[bytes]:
        for named in sorted(find_named(group)):
            yield from self._render_group(named)
        yield from render_group_rules(self._table, group)

    def _render_chains(self, group_id: str) -> Iterator[bytes]:
        self._chains.add(group_id)
        yield from render_group(self._table, group_id)
        yield from self._render_members(group_id)

    def _render_members(self, group_id: str) -> Iterator[bytes]:
        members = set(self._members(group_id))
        for version in VERSIONS:
            keys = [address.packed for address in members if address.version == version]
            if keys:
                yield self._table.add(members_name(group_id, version), sorted(keys))

    def _members(self, group_id: str) -> Iterator[Address]:
        yield from self._find(group_id).members
        for addresses, groups in self._enis.values():
            if group_id in (groups.groups or ()):
                yield from addresses
        for eni in self._guards:
            if group_id in (eni.security_groups or ()):
                yield from addresses_of(eni)

    def _render_changes(self, changed: Iterable[GroupPlan], gone: Iterable[str]) -> Iterator[bytes]:
        """Yield what makes the rules and members of groups so, if anything uses them."""
        for group in changed:
            if group.id in self._chains:
                yield from self._replace_members(group.id)
                yield from self._render_rules(group)
        for group_id in self._chains.intersection(gone):
            yield from self._replace_members(group_id)
            yield from render_group_rules(self._table, GroupPlan(id=group_id))

    def _replace_members(self, group_id: str) -> Iterator[bytes]:
        for version in VERSIONS:
            yield self._table.flush_set(members_name(group_id, version))
        yield from self._render_members(group_id)

    def _render_close(self, eni_id: str) -> Iterator[bytes]:
        addresses, groups = self._enis[eni_id]
        for address in addresses:
            yield from remove_address(self._table, address)
            for group_id in groups.groups or ():
                if address not in self._find(group_id).members:
                    name = members_name(group_id, address.version)
                    yield self._table.remove_elements(name, [address.packed])
