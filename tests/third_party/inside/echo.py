"""Answer on port 9000, by TCP with who asks, by UDP with what came; IPv4 and IPv6."""

import asyncio
import signal
from typing import Any

PORT = 9000


class Echo(asyncio.DatagramProtocol):
    """Returns each datagram."""

    def connection_made(self, transport: Any) -> None:
        """Remember where answers go."""
        self.transport = transport

    def datagram_received(self, data: bytes, peer: Any) -> None:
        """Return it."""
        self.transport.sendto(data, peer)


async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say who asks."""
    writer.write(writer.get_extra_info("peername")[0].encode())
    writer.close()


async def main() -> None:
    """Serve until the task is stopped."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    await asyncio.start_server(answer, ["0.0.0.0", "::"], PORT)
    await loop.create_datagram_endpoint(Echo, ("::", PORT))
    print("serving", flush=True)
    await over.wait()


asyncio.run(main())
