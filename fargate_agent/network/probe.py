"""Whether an address is free: ARP asks the subnet, and whoever answers has it already.

Asking takes a moment and waiting costs a task's start, so `start` asks, and `confirm` reads what
has come meanwhile: before the images are pulled, and again before the first container starts.
Source: RFC 5227, sections 2.1 and 2.3.
"""

import asyncio
import errno
import socket
import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.plan import EniPlan

REPEAT_AFTER_S: Final = (0.02, 0.2, 1.0)
"""When to ask again. A bridge takes a few milliseconds to forward for a new port, and RFC 5227
wants three probes."""

LISTEN_S: Final = 2.0
"""After this nobody asks any more: `confirm` was called, or the task has ended."""

_ETH_P_ARP: Final = 0x0806
_ETH_P_IP: Final = 0x0800
"""Source: Linux, include/uapi/linux/if_ether.h."""
_PACKET: Final = struct.Struct("!6s6sHHHBBH6s4s6s4s")
"""Ethernet: destination, source, type. ARP: the two address kinds and sizes, operation, sender's
MAC and address, target's MAC and address. Source: RFC 826."""
_REQUEST: Final = 1
_ETHERNET: Final = 1
_BROADCAST: Final = b"\xff" * 6
_NOBODY: Final = IPv4Address(0)


class AddressProbes:
    """The questions that are under way, one per ENI."""

    def __init__(self) -> None:
        self._probes: dict[str, _Probe] = {}

    def start(self, eni: EniPlan, netns: Path) -> None:
        """Ask the ENI's subnet who has its address. The interface must be up.

        Raises:
            OSError: the kernel refused.
        """
        self.close(eni)
        probe = self._probes[eni.id] = _Probe(eni, netns)
        asyncio.get_running_loop().call_later(LISTEN_S, self._end, eni, probe)

    def confirm(self, eni: EniPlan) -> None:
        """Tell the subnet who has the address, unless somebody has answered.

        Says nothing if nothing is asked any more.

        Raises:
            ResourceInitializationError: the address is in use.
        """
        probe = self._probes.get(eni.id)
        if probe is None:
            return
        holder = probe.find_holder()
        if holder is not None:
            self.close(eni)
            raise ResourceInitializationError(
                f"ENI {eni.id}: address {eni.address.ip} is already in use on its subnet "
                f"by {holder}"
            )
        probe.announce()

    def close(self, eni: EniPlan) -> None:
        """Ask no more."""
        probe = self._probes.pop(eni.id, None)
        if probe is not None:
            probe.close()

    def close_all(self) -> None:
        """Ask nothing more about any."""
        while self._probes:
            self._probes.popitem()[1].close()

    def _end(self, eni: EniPlan, probe: "_Probe") -> None:
        if self._probes.get(eni.id) is probe:
            self.close(eni)


class _Probe:
    def __init__(self, eni: EniPlan, netns: Path) -> None:
        self._address = eni.address.ip
        self._mac = bytes.fromhex(eni.mac.replace(":", ""))
        self._announced = False
        self._socket = socket_in_netns(
            netns, socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK
        )
        try:
            self._socket.bind((eni.ifname, _ETH_P_ARP))
        except OSError:
            self._socket.close()
            raise
        self._send(_NOBODY)
        loop = asyncio.get_running_loop()
        self._repeats = [loop.call_later(delay, self._send, _NOBODY) for delay in REPEAT_AFTER_S]

    def find_holder(self) -> str | None:
        """Return the MAC of whoever else has the address, or is about to take it."""
        while packet := self._read():
            holder = self._read_holder(packet)
            if holder is not None:
                return holder
        return None

    def announce(self) -> None:
        """Let neighbours forget which MAC had the address before; once."""
        if not self._announced:
            self._announced = True
            self._send(self._address)

    def close(self) -> None:
        for repeat in self._repeats:
            repeat.cancel()
        # The kernel takes 5 to 15 ms (measured) to let go of a socket for packets.
        self._closing = asyncio.get_running_loop().run_in_executor(None, self._socket.close)

    def _send(self, sender: IPv4Address) -> None:
        packet = _PACKET.pack(
            *(_BROADCAST, self._mac, _ETH_P_ARP),
            *(_ETHERNET, _ETH_P_IP, len(self._mac), len(sender.packed), _REQUEST),
            *(self._mac, sender.packed, bytes(6), self._address.packed),
        )
        try:
            self._socket.send(packet)
        except OSError as error:
            # A lost question is repeated; an interface that has gone has no conflict.
            if error.errno not in {errno.ENOBUFS, errno.EAGAIN, errno.ENETDOWN, errno.ENXIO}:
                raise

    def _read(self) -> bytes:
        try:
            return self._socket.recv(_PACKET.size)
        except BlockingIOError:
            return b""

    def _read_holder(self, packet: bytes) -> str | None:
        if len(packet) < _PACKET.size:
            return None
        *_, operation, mac, sender, _, target = _PACKET.unpack(packet)
        asks_too = operation == _REQUEST and sender == _NOBODY.packed
        subject = target if asks_too else sender
        if mac == self._mac or subject != self._address.packed:
            return None
        return ":".join(f"{octet:02x}" for octet in mac)
