"""Do in a container's network what only its capabilities limit: KIND ARGUMENT...

Frames come as JSON by the standard input, since there may be many.
"""

import errno
import json
import selectors
import socket
import sys
import time
from pathlib import Path

PATIENCE_S = 3.0
"""How long a connection may take, or an answer."""
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
"""Source: Linux, include/linux/socket.h, include/uapi/linux/if_packet.h."""


def send(*places: str) -> object:
    """Send frames, each `{"frame": HEX, "count", "at"}`, then a datagram to each ADDRESS,PORT.

    With a count, a number is written at the places `at`, of which every other one has it inverted.
    """
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as card:
        card.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        card.bind(("eth1", 0))
        for one in json.load(sys.stdin):
            frame = bytearray.fromhex(one["frame"])
            for number in range(one.get("count", 1)):
                for place, at in enumerate(one.get("at", ())):
                    word = number ^ (0xFFFF if place % 2 else 0)
                    frame[at : at + 2] = word.to_bytes(2)
                sent += put(card, bytes(frame))
    return {"sent": sent, **pings(*places)}


def put(card: socket.socket, frame: bytes) -> int:
    """Send a frame; 0 if a filter took it, or there was no room for it, which looks the same."""
    try:
        card.send(frame)
    except OSError as error:
        if error.errno in {errno.ENOBUFS, errno.EPERM}:
            return 0
        raise
    return 1


def ping(address: str, port: int) -> bool:
    """Whether a server returns a datagram."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.sendto(b"the end", (address, port))
            return sock.recv(100) == b"the end"
        except OSError:
            return False


def reach(*places: str) -> object:
    """Knock at each `tcp` or `udp`, ADDRESS and PORT at once, with commas between them.

    Says `reached`, `silence`, or the name of the error that a program gets.
    """
    answers = {}
    with selectors.DefaultSelector() as waiting:
        for place in places:
            protocol, address, port = place.split(",")
            is_tcp = protocol == "tcp"
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            code = sock.connect_ex((address, int(port)))
            answers[place] = name_of(code) if code and code != errno.EINPROGRESS else "silence"
            if answers[place] == "silence":
                if not is_tcp:
                    sock.send(b"knock")
                event = selectors.EVENT_WRITE if is_tcp else selectors.EVENT_READ
                waiting.register(sock, event, place)
        ends_s = time.monotonic() + PATIENCE_S
        while waiting.get_map() and (left_s := ends_s - time.monotonic()) > 0:
            for key, _ in waiting.select(left_s):
                sock = key.fileobj
                answers[key.data] = name_of(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                waiting.unregister(sock)
                sock.close()
    return answers


def name_of(code: int) -> str:
    """What a program that connects is told."""
    return errno.errorcode.get(code, str(code)) if code else "reached"


def pings(*places: str) -> dict[str, bool]:
    """Send a datagram to each ADDRESS,PORT; say which returned it."""
    parts = [place.rpartition(",") for place in places]
    return {place: ping(one[0], int(one[2])) for place, one in zip(places, parts, strict=True)}


def look() -> object:
    """Say what the network namespace shows: names of unix sockets, and the capabilities."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    names = [row[7] for row in rows if len(row) > 7]
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return {"unix": names, "capabilities": int(effective, 16)}


KINDS = {"send": send, "reach": reach, "pings": pings, "look": look}

if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](*sys.argv[2:])), flush=True)
