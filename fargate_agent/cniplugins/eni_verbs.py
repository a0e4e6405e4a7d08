"""What plugins do that move a NIC of the host into a container, and back."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.checks import check_interface
from fargate_agent.cniplugins.enis import EniConfig, describe, furnish, get_nic, unblock
from fargate_agent.cniplugins.errors import NOT_AVAILABLE, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.locks import turn
from fargate_agent.cniplugins.marks import network_prefix, render_mark
from fargate_agent.cniplugins.nics import (
    TURN,
    find_taken,
    give_back,
    give_back_unmarked,
    list_marks,
    refuse_used,
    take,
)
from fargate_agent.cniplugins.results import Result
from fargate_agent.cniplugins.sandboxes import (
    Place,
    list_named,
    open_container,
    open_host,
    open_place,
)
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.link_requests import find_link, get_link


class EniVerbs(NamedTuple):
    """What one such plugin does."""

    name: str
    """Of the plugin."""
    read: Callable[[Fields], EniConfig]
    """Reads its configuration, or raises CniError."""

    def by_name(self) -> Mapping[str, Callable[[Call], Result | None]]:
        """Return what it does for each verb."""
        return {
            "ADD": self.add,
            "DEL": self.delete,
            "CHECK": self.check,
            "GC": self.collect,
            "STATUS": self.tell_status,
        }

    def add(self, call: Call) -> Result:
        """Move the NIC in, and give it what it is told to have."""
        eni = self.read(call.config)
        with open_host() as host, open_container(call) as container:
            assert container is not None  # noqa: S101 - of ADD it is there
            ifname = self._bring(call, host, container, eni)
            try:
                link = get_link(container.link, ifname)
                routes = () if eni.stays_down else furnish(call, container, link, eni)
                return describe(call, get_link(container.link, ifname), eni, routes)
            except BaseException:
                with turn(TURN):
                    self._undo(call, host, container)
                raise

    def delete(self, call: Call) -> None:
        """Give the NIC back as it was."""
        eni = self.read(call.config)
        with open_host() as host, open_container(call) as container, turn(TURN):
            give_back(call.journal, host, container, self._mark(call))
            if container is not None:
                if eni.mac:
                    give_back_unmarked(call.journal, host, container, eni.mac)
                unblock(container)

    def check(self, call: Call) -> None:
        """See that the container has the NIC with all that ADD gave it."""
        eni = self.read(call.config)
        with open_container(call) as container:
            assert container is not None  # noqa: S101 - of CHECK it is there
            previous = call.previous()
            ifname = call.ifname
            if eni.stays_down and previous.interfaces:
                ifname = previous.interfaces[0].name
            link = check_interface(container, ifname, previous)
            if eni.mtu and not eni.stays_down and link.mtu != eni.mtu:
                raise CniError(f"interface {ifname} has MTU {link.mtu}, not {eni.mtu}")

    def collect(self, call: Call) -> None:
        """Give back the NICs of attachments that aren't there any more."""
        kept = {render_mark(self.name, call.network, *one) for one in call.attachments()}
        prefix = network_prefix(self.name, call.network)
        faults: list[str] = []
        with open_host() as host, turn(TURN):
            for mark in list_marks(host, prefix) - kept:
                give_back(call.journal, host, None, mark)
            for path in list_named():
                try:
                    with open_place(path) as place:
                        lost = list_marks(place, prefix) - kept
                        for mark in lost:
                            give_back(call.journal, host, place, mark)
                        if lost:
                            unblock(place)
                except (NetlinkError, OSError) as error:
                    faults.append(f"{path}: {error}")
        if faults:
            raise CniError("; ".join(faults))

    def tell_status(self, call: Call) -> None:
        """See that the NIC can be taken."""
        eni = self.read(call.config)
        with open_host() as host:
            try:
                refuse_used(host, get_nic(host, eni.device, eni.mac))
            except CniError as error:
                raise CniError(f"{self.name}: {error}", NOT_AVAILABLE) from error

    def _bring(self, call: Call, host: Place, container: Place, eni: EniConfig) -> str:
        """Move the NIC into the container; return its name there."""
        with turn(TURN):
            if find_taken(container, self._mark(call)):
                raise CniError(f"{call.container_id} has a device for {call.ifname} already")
            nic = get_nic(host, eni.device, eni.mac)
            refuse_used(host, nic)
            ifname = nic.name if eni.stays_down else call.ifname
            if find_link(container.link, ifname) is not None:
                raise CniError(f"interface {ifname} is in the container already")
            try:
                take(host, container, nic, self._mark(call), ifname)
            except BaseException:
                self._undo(call, host, container)
                raise
            return ifname

    def _undo(self, call: Call, host: Place, container: Place) -> None:
        """Take back what a failed ADD did; whatever can't be taken back, DEL takes back."""
        try:
            give_back(call.journal, host, container, self._mark(call))
            unblock(container)
        except (NetlinkError, OSError) as error:
            call.journal.warn(f"could not take back: {error}")

    def _mark(self, call: Call) -> str:
        return render_mark(self.name, call.network, call.container_id, call.ifname)
