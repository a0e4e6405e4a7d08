"""Which addresses are given, to whom: one file, replaced as a whole, by one process at a time."""

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Any, Final, NamedTuple

from fargate_agent.cniplugins.errors import IO_FAILURE, CniError
from fargate_agent.cniplugins.locks import turn
from fargate_agent.cniplugins.results import Address, Range

FORMAT: Final = 1


class Holder(NamedTuple):
    """Who has an address: an attachment, and the id by which it is known."""

    id: str
    network: str
    container_id: str
    ifname: str

    def is_same_attachment(self, other: "Holder") -> bool:
        """Whether both are of one interface of one container."""
        return self[1:] == other[1:]


class Store:
    """What the file says, and will say when the turn ends."""

    def __init__(self, raw: dict[str, Any]) -> None:
        """Take what a file of `FORMAT` says."""
        self.holders = {one: Holder(*holder) for one, holder in raw.get("holders", {}).items()}
        """By address."""
        self._last: dict[str, str] = raw.get("last", {})
        """By subnet the address that was given or freed last."""
        self._gateways: dict[str, list[str]] = raw.get("gateways", {})
        """By subnet: others with this subnet don't give them either."""
        self._as_it_was = self.render()

    def is_changed(self) -> bool:
        """Whether it isn't as it was in the file."""
        return self.render() != self._as_it_was

    def render(self) -> str:
        """Return what the file has to say."""
        return json.dumps(
            {
                "format": FORMAT,
                "holders": self.holders,
                "last": self._last,
                "gateways": self._gateways,
            }
        )

    def keep_gateway(self, subnet: Range, gateway: Address) -> None:
        """Never give the address of a gateway.

        Raises:
            CniError: somebody has it.
        """
        if str(gateway) in self.holders:
            raise CniError("verifyGateway commands: ip of gateway has already been used")
        known = self._gateways.setdefault(str(subnet), [])
        if str(gateway) not in known:
            known.append(str(gateway))

    def is_free(self, subnet: Range, address: Address) -> bool:
        """Whether an address can be given."""
        return str(address) not in self._taken(subnet)

    def find_free(self, subnet: Range) -> Address | None:
        """Return the address after the one that was last, if any is free."""
        taken = {int(ip_address(one)) for one in self._taken(subnet)}
        first = int(subnet.network_address) + 1
        final = int(subnet.broadcast_address) - (subnet.version == 4)
        last = self._last.get(str(subnet))
        at = first - 1 if last is None else int(ip_address(last))
        for _ in range(min(final - first, len(taken)) + 1):
            at = at + 1 if first - 1 <= at < final else first
            if at not in taken:
                return subnet[at - first + 1]
        return None

    def give(self, subnet: Range, address: Address, holder: Holder) -> None:
        """Note who has an address from now on."""
        self.holders[str(address)] = holder
        self._last[str(subnet)] = str(address)

    def free(self, address: str) -> None:
        """Note that nobody has an address any more: the next one that is given comes after it."""
        del self.holders[address]
        for subnet in self._last:
            if ip_address(address) in ip_network(subnet):
                self._last[subnet] = address

    def _taken(self, subnet: Range) -> list[str]:
        addresses = (*self.holders, *self._gateways.get(str(subnet), ()))
        return [one for one in addresses if (":" in one) == (subnet.version == 6)]


@contextmanager
def open_store(path: str, timeout_s: float) -> Iterator[Store]:
    """Run the body with what is noted at a path, and write down what it changed if it succeeds.

    No other process does the same meanwhile.

    Raises:
        CniError: others took too long, or the file isn't one of these.
        OSError: it can't be read or written.
    """
    before, slash, name = path.rpartition("/")
    directory = os.path.realpath(before + slash or ".")
    where = f"{directory}/{name}"
    with turn(f"ipam-{zlib.crc32(where.encode()):08x}", timeout_s):
        store = Store(_read(where))
        yield store
        if store.is_changed():
            _write(directory, where, store.render())


def _read(path: str) -> dict[str, Any]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    with os.fdopen(descriptor, "rb") as file:
        text = file.read()
    try:
        raw = json.loads(text)
    except ValueError:
        raw = None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise CniError(f"{path} holds something else than the addresses of ecs-ipam", IO_FAILURE)
    return raw


def _write(directory: str, path: str, text: str) -> None:
    """What a power cut may undo: then no container is left, and nobody has an address."""
    os.makedirs(directory, 0o700, exist_ok=True)  # noqa: PTH103 - no pathlib here
    draft = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)  # noqa: PTH105
