"""NICs of the host that containers have: taken, and given back as they were.

A NIC that is taken is marked with whose it is and what it was like, in its alias, which stays with
it wherever it goes. So DEL and GC find it also when a call was cut short, or the namespace is gone:
one that ends gives hardware to the first namespace of the machine, under the name that it has.
"""

import errno
from typing import Final, NamedTuple

from fargate_agent.cniplugins.call import check_ifname
from fargate_agent.cniplugins.errors import FAILED, CniError
from fargate_agent.cniplugins.journal import Journal
from fargate_agent.cniplugins.sandboxes import Place
from fargate_agent.network.blocking import NetlinkError, Request, require_each
from fargate_agent.network.link_requests import (
    ON_ANOTHER,
    OVER_OTHERS,
    LinkState,
    find_link_by_index,
    list_links,
    list_routes,
    render_move,
    render_name,
)
from fargate_agent.network.rtnetlink import TABLE_MAIN, UNICAST, render_link

TURN: Final = "nics"
"""Of who takes NICs and gives them back; see `fargate_agent.cniplugins.locks`."""
FREE_NAME: Final = "ecs%d"
"""What a NIC is called whose name somebody else has taken meanwhile."""
MAX_ALIAS_BYTES: Final = 255
"""Source: Linux, include/uapi/linux/if.h, IFALIASZ."""
_NIC: Final = ":nic:"
_OTHERS_MARKS: Final = ("fargate:", "fargate-cni:")


class Note(NamedTuple):
    """What is noted on a NIC as long as a container has it."""

    mark: str
    """Of the attachment. Source: `marks.render_mark`."""
    name: str
    mtu: int
    alias: str
    """All three as they were."""

    def render(self) -> str:
        """Return it as an alias; of an alias that is too long a part is lost."""
        text = f"{self.mark}{_NIC}{self.name}:{self.mtu}:{self.alias}"
        return text.encode()[:MAX_ALIAS_BYTES].decode(errors="ignore")


def read_note(alias: str) -> Note | None:
    """Return what an alias notes; None if it notes nothing of a plugin."""
    mark, found, rest = alias.partition(_NIC)
    parts = rest.split(":", 2)
    if not found or len(parts) != 3 or not parts[1].isdecimal():
        return None
    return Note(mark, parts[0], int(parts[1]), parts[2])


def find_nic(host: Place, mac: str) -> LinkState | None:
    """Return the interface of the host with a MAC, or whose hardware has it.

    Of several it is the one that is hardware, and part of nothing else.

    Raises:
        NetlinkError: the kernel refused.
    """
    found = [
        one
        for one in list_links(host.link)
        if mac in {one.mac, one.permanent_mac} and one.kind not in ON_ANOTHER | OVER_OTHERS
    ]
    return min(found, key=lambda one: (bool(one.kind), bool(one.master), one.ifindex), default=None)


def refuse_used(host: Place, nic: LinkState) -> None:
    """Leave a NIC alone that somebody uses.

    Raises:
        CniError: it is used.
        NetlinkError: the kernel refused.
    """
    use = None
    if nic.alias.startswith(_OTHERS_MARKS):
        use = f"taken already: {nic.alias}"
    elif nic.master:
        use = "a part of another interface"
    elif nic.ifindex in _find_default_interfaces(host):
        use = "what the default route of this machine leads to"
    if use is not None:
        raise CniError(f"device {nic.name} with mac address {nic.mac} is {use}", FAILED)


def take(host: Place, container: Place, nic: LinkState, mark: str, ifname: str) -> None:
    """Mark a NIC, and move it into a container, where it has that name and is down.

    Raises:
        NetlinkError: the kernel refused. The NIC may be marked then.
    """
    note = Note(mark, nic.name, nic.mtu, nic.alias)
    what = f"move device {nic.name}"
    require_each(host.link, [Request(what, render_link(nic.ifindex, alias=note.render()))])
    move = render_move(nic.ifindex, container.descriptor, ifname)
    require_each(host.link, [Request(what, move)])


def find_taken(place: Place, mark: str) -> list[LinkState]:
    """Return the NICs of a namespace that one attachment has.

    Raises:
        NetlinkError: the kernel refused.
    """
    return [one for one in list_links(place.link) if _mark_of(one) == mark]


def list_marks(place: Place, prefix: str) -> set[str]:
    """Return the marks on NICs of a namespace that begin like that.

    Raises:
        NetlinkError: the kernel refused.
    """
    marks = map(_mark_of, list_links(place.link))
    return {one for one in marks if one.startswith(prefix)}


def give_back(journal: Journal, host: Place, container: Place | None, mark: str) -> None:
    """Have the NICs of an attachment be on the host as they were, and down.

    Raises:
        NetlinkError: the kernel refused.
    """
    if container is not None:
        for nic in find_taken(container, mark):
            note = read_note(nic.alias)
            _move_out(host, container, nic, note.name if note else FREE_NAME)
    for nic in find_taken(host, mark):
        _restore(journal, host, nic)


def give_back_unmarked(journal: Journal, host: Place, container: Place, mac: str) -> None:
    """Move out of a container what is hardware with that MAC, and has lost its mark there.

    Raises:
        NetlinkError: the kernel refused.
    """
    for nic in list_links(container.link):
        if nic.permanent_mac == mac and not nic.kind and read_note(nic.alias) is None:
            journal.warn(f"{nic.name} with mac address {mac} has lost its mark, and its name")
            _move_out(host, container, nic, FREE_NAME)


def _move_out(host: Place, container: Place, nic: LinkState, name: str) -> None:
    """Move a NIC to the host; who is in the container can have noted any name.

    If the name is taken there, the kernel may move it all the same, with the name of before.
    """
    names = [FREE_NAME] if check_ifname(name) is not None else [name, FREE_NAME]
    for one in names:
        move = render_move(nic.ifindex, host.descriptor, one)
        try:
            require_each(container.link, [Request(f"move device {nic.name}", move)])
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            inside = find_link_by_index(container.link, nic.ifindex)
            if inside is None or inside.mac != nic.mac:
                return
        else:
            return
    raise NetlinkError(f"move device {nic.name}", errno.EEXIST)


def _restore(journal: Journal, host: Place, nic: LinkState) -> None:
    """Have a NIC of the host be as it was, and then say nothing of a container."""
    note = read_note(nic.alias)
    if note is None:
        return
    what = f"restore device {nic.name}"
    if nic.name != note.name and not nic.is_up and check_ifname(note.name) is None:
        _rename(journal, host, nic, note.name)
    if nic.mtu != note.mtu:
        require_each(host.link, [Request(what, render_link(nic.ifindex, mtu=note.mtu))])
    if nic.permanent_mac not in {"", nic.mac} and not nic.is_up:
        mac = render_link(nic.ifindex, mac=nic.permanent_mac)
        require_each(host.link, [Request(what, mac)])
    require_each(host.link, [Request(what, render_link(nic.ifindex, alias=note.alias))])


def _rename(journal: Journal, host: Place, nic: LinkState, name: str) -> None:
    what = f"restore device {nic.name}"
    try:
        require_each(host.link, [Request(what, render_name(nic.ifindex, name))])
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
        journal.warn(f"{nic.name} can't have its name {name} again: another one has it")
        require_each(host.link, [Request(what, render_name(nic.ifindex, FREE_NAME))])


def _mark_of(nic: LinkState) -> str:
    note = read_note(nic.alias)
    return note.mark if note else ""


def _find_default_interfaces(host: Place) -> set[int]:
    return {
        route.interface
        for version in (4, 6)
        for route in list_routes(host.link, version)
        if route.to.prefixlen == 0 and route.table == TABLE_MAIN and route.kind == UNICAST
    }
