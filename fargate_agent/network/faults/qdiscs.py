"""Queues of interfaces, as bytes: one with two classes, of which the first is late or loses.

All numbers: Linux, include/uapi/linux/rtnetlink.h and pkt_sched.h.
"""

import socket
import struct
from dataclasses import dataclass
from typing import Final

from fargate_agent.drivers.faults import Latency, Loss
from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    Answer,
    read_attributes,
    render_attribute,
    render_message,
)
from fargate_agent.network.rtnetlink import NLM_F_EXCL

PRIO, NETEM = "prio", "netem"

ROOT: Final = 0xFFFFFFFF
PRIO_HANDLE: Final = 0xEC5 << 16
NETEM_HANDLE: Final = 0xEC6 << 16
"""What tells our queues from others. `tc` makes up numbers from 0x8000 on."""
IMPAIRED: Final = PRIO_HANDLE | 1
"""The first class of our queue."""

_NEW, _DELETE, _GET = 36, 37, 38
_KIND, _OPTIONS = 1, 2
_MESSAGE: Final = struct.Struct("=BxxxiIII")
_PRIO: Final = struct.Struct("=i16s")
_CLASSES: Final = 2
_OTHERS: Final = bytes([1] * 16)
"""Whatever its priority, a packet that isn't marked is of the second class."""
_NETEM: Final = struct.Struct("=IIIIII")
"""Latency in ticks, limit, loss, gap, duplicates, jitter in ticks."""
_LIMIT_PACKETS: Final = 1000
"""As `tc` has it."""
_LATENCY_NS, _JITTER_NS = 10, 11
_NS_PER_MS: Final = 1_000_000
_ALL: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A queue that the kernel has."""

    ifindex: int
    kind: str
    handle: int
    parent: int
    options: bytes

    @property
    def effect(self) -> type[Latency | Loss] | None:
        """What it does to packets, if it is one that impairs."""
        if self.kind != NETEM or len(self.options) < _NETEM.size:
            return None
        return Loss if _NETEM.unpack_from(self.options)[2] else Latency


def render_classes(ifindex: int) -> bytes:
    """Give an interface the queue with two classes, in the place of the kernel's own choice."""
    head = _MESSAGE.pack(socket.AF_UNSPEC, ifindex, PRIO_HANDLE, ROOT, 0)
    return _render_new(head, PRIO, _PRIO.pack(_CLASSES, _OTHERS))


def render_effect(ifindex: int, effect: Latency | Loss) -> bytes:
    """Impair the first class of that queue."""
    loss, times = 0, b""
    if isinstance(effect, Loss):
        loss = _ALL * effect.percent // 100
    else:
        for kind, time_ms in ((_LATENCY_NS, effect.delay_ms), (_JITTER_NS, effect.jitter_ms)):
            times += render_attribute(kind, struct.pack("=q", time_ms * _NS_PER_MS))
    head = _MESSAGE.pack(socket.AF_UNSPEC, ifindex, NETEM_HANDLE, IMPAIRED, 0)
    return _render_new(head, NETEM, _NETEM.pack(0, _LIMIT_PACKETS, loss, 0, 0, 0) + times)


def render_no_classes(ifindex: int) -> bytes:
    """Take the queue with two classes away, and what is below it."""
    head = _MESSAGE.pack(socket.AF_UNSPEC, ifindex, PRIO_HANDLE, ROOT, 0)
    return render_message(_DELETE, NLM_F_REQUEST | NLM_F_ACK, head)


def render_question() -> bytes:
    """Ask for all queues of a namespace."""
    head = _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    return render_message(_GET, NLM_F_REQUEST | NLM_F_DUMP, head)


def read_qdisc(answer: Answer) -> Qdisc:
    """Read one of the answers to that."""
    _, ifindex, handle, parent, _ = _MESSAGE.unpack_from(answer.payload)
    found = read_attributes(answer.payload[_MESSAGE.size :])
    kind = found.get(_KIND, b"").rstrip(b"\0").decode()
    return Qdisc(ifindex, kind, handle, parent, found.get(_OPTIONS, b""))


def _render_new(head: bytes, kind: str, options: bytes) -> bytes:
    # The kernel's own choice doesn't count as one that is there.
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    named = render_attribute(_KIND, kind.encode() + b"\0")
    return render_message(_NEW, flags, head + named + render_attribute(_OPTIONS, options))
