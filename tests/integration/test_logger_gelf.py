"""The logger with the driver `gelf`, in front of sockets that read what Graylog would."""

import gzip
import json
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.drivers import Driver, numbered, write_lines
from tests.fixtures.loggers import SHIM_WAITS_S, Logger, StartLogger
from tests.fixtures.machine import wait_for
from tests.fixtures.sinks import datagram_sink, stream_sink

DEADLINE_S = 15.0
CHUNK_HEAD_BYTES = 12


class Gelf(Driver):
    def start(self, address: str, **options: str) -> Logger:
        return self.run({"gelf-address": address}, options)


@pytest.fixture
def gelf(start_logger: StartLogger, tmp_path: Path) -> Gelf:
    return Gelf(start_logger, tmp_path, "gelf")


def read_chunks(datagrams: list[bytes]) -> bytes:
    """Put a message together. Source: Graylog documentation, "GELF", chunking."""
    assert {datagram[:10] for datagram in datagrams} == {datagrams[0][:10]}
    assert datagrams[0][:2] == b"\x1e\x0f"
    assert sorted(datagram[10] for datagram in datagrams) == list(range(len(datagrams)))
    assert {datagram[11] for datagram in datagrams} == {len(datagrams)}
    ordered = sorted(datagrams, key=lambda datagram: datagram[10])
    return b"".join(datagram[CHUNK_HEAD_BYTES:] for datagram in ordered)


def test_message_has_the_fields_of_gelf(gelf: Gelf) -> None:
    with stream_sink() as sink:
        logger = gelf.start(
            f"tcp://127.0.0.1:{sink.port}",
            tag="{{.Name}}/{{.ImageName}}",
            container_image_name="busybox:1",
            labels="tier,_x",
            container_labels='{"tier": "front", "_x": "y"}',
        )

        logger.write(b'he said "x"\xff\0\n')
        logger.write(b"trouble\n", to=logger.stderr)
        logger.finish()
        wait_for(lambda: len(sink.split(b"\0")) == 2, "the messages", DEADLINE_S)

        messages = [json.loads(message) for message in sink.split(b"\0")]
        messages.sort(key=lambda message: -message["level"])
        assert [message["short_message"] for message in messages] == [
            'he said "x"\ufffd\0',
            "trouble",
        ]
        assert [message["level"] for message in messages] == [6, 3]
        message = messages[0]
        assert message.pop("timestamp") == pytest.approx(messages[1]["timestamp"], abs=5)
        del message["short_message"], message["level"]
        assert message == {
            "version": "1.1",
            "host": socket.gethostname(),
            "_container_id": "0123456789abcdef0123456789abcdef",
            "_container_name": "web",
            "_image_name": "busybox:1",
            "_tag": "web/busybox:1",
            "_tier": "front",
            "_x": "y",
        }


@pytest.mark.parametrize(
    ("compression", "expand"),
    [
        pytest.param({}, gzip.decompress, id="as by default"),
        pytest.param({"gelf_compression_type": "gzip"}, gzip.decompress, id="gzip"),
        pytest.param(
            {"gelf_compression_type": "zlib", "gelf_compression_level": "9"},
            zlib.decompress,
            id="zlib",
        ),
        pytest.param({"gelf_compression_type": "none"}, bytes, id="not at all"),
    ],
)
def test_datagrams_are_compressed(
    gelf: Gelf, compression: dict[str, str], expand: Callable[[bytes], bytes]
) -> None:
    with datagram_sink() as sink:
        logger = gelf.start(f"udp://127.0.0.1:{sink.port}", **compression)

        write_lines(logger, numbered(100))
        logger.finish()
        wait_for(lambda: len(sink.messages) == 100, "the messages", DEADLINE_S)

        messages: list[dict[str, Any]] = [json.loads(expand(data)) for data in sink.messages]
        assert [message["short_message"] for message in messages] == numbered(100)


def test_long_message_comes_in_chunks(gelf: Gelf) -> None:
    with datagram_sink() as sink:
        logger = gelf.start(f"udp://127.0.0.1:{sink.port}", gelf_compression_type="none")

        logger.write(b"\x01" * 16_000 + b"\n")
        logger.finish()
        wait_for(lambda: bool(sink.messages), "the first chunk", DEADLINE_S)
        wait_for(lambda: len(sink.messages) == sink.messages[0][11], "the chunks", DEADLINE_S)

        message = json.loads(read_chunks(sink.messages))
        assert message["short_message"] == "\x01" * 16_000
        assert max(map(len, sink.messages)) == 1420


def test_nothing_is_lost_over_tcp_while_nobody_listens(gelf: Gelf) -> None:
    with stream_sink() as sink:
        logger = gelf.start(f"tcp://127.0.0.1:{sink.port}")
        write_lines(logger, numbered(1000))
        wait_for(lambda: len(sink.split(b"\0")) == 1000, "the first messages", DEADLINE_S)
        sink.stop()
        write_lines(logger, numbered(2000)[1000:])
        wait_for(lambda: bool(gelf.read_notes()), "the outage to be told", DEADLINE_S)

        sink.start()
        code = logger.finish()
        wait_for(lambda: len(set(sink.split(b"\0"))) >= 2000, "the messages", DEADLINE_S)

        assert code == 0
        texts = [json.loads(message)["short_message"] for message in sink.split(b"\0")]
        # What the logger hadn't seen acknowledged when the server went comes again.
        assert list(dict.fromkeys(texts)) == numbered(2000)  # sent 2,000, arrived 2,000, dropped 0


def test_everything_arrives_over_tcp_at_a_server_that_reads_1_kb_per_second(gelf: Gelf) -> None:
    with stream_sink() as sink:
        sink.bytes_per_s = 1000
        logger = gelf.start(f"tcp://127.0.0.1:{sink.port}")

        write_lines(logger, numbered(15))
        logger.finish()
        wait_for(lambda: len(sink.split(b"\0")) == 15, "the messages", DEADLINE_S)

        assert len(sink.connections) == 1


def test_logger_ends_in_time_and_tells_what_is_missing_when_nobody_reads(gelf: Gelf) -> None:
    with stream_sink() as sink:
        sink.reads.clear()
        logger = gelf.start(f"tcp://127.0.0.1:{sink.port}", max_buffer_size="40m")
        printed = [f"{number:01000d}" for number in range(20_000)]
        write_lines(logger, printed[:1])
        wait_for(sink.has_unread, "the first message", DEADLINE_S)
        write_lines(logger, printed[1:])

        assert logger.delete() < SHIM_WAITS_S
        sink.reads.set()
        lost = int(gelf.read_losses()[-1].split()[1])
        wait_for(lambda: len(sink.split(b"\0")) >= len(printed) - lost, "the others", DEADLINE_S)

        # The kernel still brings what the logger had to give up as not acknowledged.
        texts = [json.loads(message)["short_message"] for message in sink.split(b"\0")]
        assert texts == printed[: len(texts)]
        assert 0 < lost < len(printed)


def test_container_is_not_stopped_by_an_absent_udp_server(gelf: Gelf) -> None:
    with datagram_sink() as sink:
        port = sink.port
    logger = gelf.start(f"udp://127.0.0.1:{port}")

    write_lines(logger, numbered(1000))
    code = logger.finish()

    assert logger.ready == b"\0"
    assert code == 0


def test_container_does_not_start_without_a_tcp_server(gelf: Gelf) -> None:
    with stream_sink() as sink:
        port = sink.port

    logger = gelf.start(f"tcp://127.0.0.1:{port}")

    assert logger.ready == b""
    assert gelf.fault.read_text() == f"dial tcp 127.0.0.1:{port}: connect: connection refused"


@pytest.mark.parametrize(
    ("address", "options", "text"),
    [
        pytest.param("", {}, "gelf-address is a required parameter", id="no address"),
        pytest.param(
            "host:1",
            {},
            "gelf-address should be in form proto://address, got host:1",
            id="no scheme",
        ),
        pytest.param("unix:///x", {}, "gelf: endpoint needs to be TCP or UDP", id="scheme"),
        pytest.param("udp://host", {}, "invalid port in address 'udp://host'", id="no port"),
        pytest.param(
            "udp://127.0.0.1:9",
            {"gelf_compression_type": "x"},
            'gelf: invalid compression type "x"',
            id="compression",
        ),
        pytest.param(
            "udp://127.0.0.1:9",
            {"gelf_compression_level": "10"},
            'unknown value "10" for log opt "gelf-compression-level" for gelf log driver',
            id="level",
        ),
        pytest.param(
            "tcp://127.0.0.1:9",
            {"gelf_compression_type": "gzip"},
            "compression is only supported on UDP",
            id="compression over TCP",
        ),
        pytest.param(
            "udp://127.0.0.1:9",
            {"gelf_tcp_max_reconnect": "3"},
            '"gelf-tcp-max-reconnect" is only valid for TCP',
            id="attempts over UDP",
        ),
        pytest.param(
            "tcp://127.0.0.1:9",
            {"gelf_tcp_reconnect_delay": "-1"},
            "gelf-tcp-reconnect-delay must be a positive integer",
            id="pause",
        ),
    ],
)
def test_container_does_not_start_with_a_wrong_option(
    gelf: Gelf, address: str, options: dict[str, str], text: str
) -> None:
    logger = gelf.start(address, **options)

    assert logger.ready == b""
    assert gelf.fault.read_text() == text
