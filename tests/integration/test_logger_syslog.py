"""The logger with the driver `syslog`, in front of Debian's rsyslog and of plain sockets."""

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.drivers import Driver, numbered, write_lines
from tests.fixtures.hec import make_certificate
from tests.fixtures.loggers import Logger, StartLogger
from tests.fixtures.machine import wait_for
from tests.fixtures.sinks import datagram_sink, stream_sink
from tests.fixtures.syslog import Message, Rsyslog, running_rsyslog

DEADLINE_S = 15.0


@pytest.fixture
def rsyslog() -> Iterator[Rsyslog]:
    with running_rsyslog() as server:
        yield server


class Syslog(Driver):
    def start(self, address: str, **options: str) -> Logger:
        return self.run({"syslog-address": address}, options)


@pytest.fixture
def syslog(start_logger: StartLogger, tmp_path: Path) -> Syslog:
    return Syslog(start_logger, tmp_path, "syslog")


def address_of(rsyslog: Rsyslog, network: str) -> str:
    places = {"unix": "/stream", "unixgram": "/datagram"}
    if network in places:
        return f"{network}://{rsyslog.directory}{places[network]}"
    return f"{network}://127.0.0.1:{rsyslog.port}"


@pytest.mark.parametrize("network", ["tcp", "udp", "unix", "unixgram"])
@pytest.mark.parametrize(
    "form",
    [
        pytest.param("rfc3164", id="RFC 3164"),
        pytest.param("rfc5424", id="RFC 5424"),
        pytest.param("rfc5424micro", id="RFC 5424 with microseconds"),
    ],
)
def test_rsyslog_reads_every_format_over_every_network(
    syslog: Syslog, rsyslog: Rsyslog, network: str, form: str
) -> None:
    logger = syslog.start(
        address_of(rsyslog, network), syslog_format=form, syslog_facility="local3", tag="{{.Name}}"
    )

    logger.write("größer | than\t1\n".encode())
    logger.write(b"trouble\n", to=logger.stderr)
    code = logger.finish()
    wait_for(lambda: len(rsyslog.messages()) == 2, "the messages", DEADLINE_S)

    assert code == 0
    first, second = sorted(rsyslog.messages(), key=lambda message: message.severity == "err")
    assert (first.facility, first.severity, first.program) == ("local3", "info", "web")
    assert (second.facility, second.severity, second.program) == ("local3", "err", "web")
    assert (first.text, second.text) == ("größer | than\t1", "trouble")


def test_default_format_is_that_of_the_machines_own_syslog(
    syslog: Syslog, rsyslog: Rsyslog
) -> None:
    logger = syslog.start(f"unixgram://{rsyslog.directory}/local", tag="{{.Name}}")

    write_lines(logger, ["x"])
    logger.finish()
    wait_for(lambda: bool(rsyslog.messages()), "the message", DEADLINE_S)

    assert rsyslog.messages() == [Message("daemon", "info", "web", "x")]


@pytest.mark.parametrize("network", ["tcp", "unix", "unixgram"])
def test_every_line_arrives_at_rsyslog_in_order(
    syslog: Syslog, rsyslog: Rsyslog, network: str
) -> None:
    logger = syslog.start(address_of(rsyslog, network), syslog_format="rfc5424")
    sent = numbered(20_000)

    write_lines(logger, sent)
    logger.finish()
    wait_for(lambda: len(rsyslog.texts()) >= len(sent), "the messages", DEADLINE_S)

    assert rsyslog.texts() == sent  # sent 20,000, arrived 20,000, dropped 0


@pytest.mark.parametrize("network", ["tcp", "unix", "unixgram"])
def test_nothing_is_lost_while_rsyslog_is_gone(
    syslog: Syslog, rsyslog: Rsyslog, network: str
) -> None:
    logger = syslog.start(address_of(rsyslog, network), syslog_format="rfc5424")
    write_lines(logger, numbered(1000))
    wait_for(lambda: len(rsyslog.texts()) == 1000, "the first messages", DEADLINE_S)
    rsyslog.stop()
    write_lines(logger, numbered(2000)[1000:])
    wait_for(lambda: bool(syslog.read_notes()), "the outage to be told", DEADLINE_S)

    rsyslog.start()
    code = logger.finish()
    wait_for(lambda: len(set(rsyslog.texts())) >= 2000, "the messages", DEADLINE_S)

    assert code == 0
    # What the logger hadn't seen acknowledged when the server went comes again.
    arrived = list(dict.fromkeys(rsyslog.texts()))
    assert arrived == numbered(2000)  # sent 2,000, arrived 2,000, dropped 0


def test_container_waits_and_nothing_is_lost_while_nobody_listens(
    syslog: Syslog, tmp_path: Path
) -> None:
    with stream_sink(tmp_path / "log") as sink:
        logger = syslog.start(f"unix://{tmp_path / 'log'}", mode="blocking", max_buffer_size="64k")
        sink.stop()
        sent = numbered(20_000)
        writer = threading.Thread(target=write_lines, args=(logger, sent))
        writer.start()
        wait_for(lambda: bool(syslog.read_notes()), "the outage to be told", DEADLINE_S)
        waits = writer.is_alive()

        sink.start()
        writer.join(DEADLINE_S)
        logger.finish()
        wait_for(lambda: len(sink.split(b"\n")) >= len(sent), "the messages", DEADLINE_S)

        assert waits
        texts = [message.partition(b": ")[2].decode() for message in sink.split(b"\n")]
        assert texts == sent  # sent 20,000, arrived 20,000, dropped 0


def test_what_a_program_has_not_read_when_it_hangs_up_comes_again(
    syslog: Syslog, tmp_path: Path
) -> None:
    with stream_sink(tmp_path / "log") as sink:
        sink.closes_after_bytes = 100_000
        sink.reads.clear()
        logger = syslog.start(f"unix://{tmp_path / 'log'}")
        sent = numbered(5000)
        write_lines(logger, sent)

        sink.reads.set()
        logger.finish()
        wait_for(lambda: len(set(sink.split(b"\n"))) >= len(sent), "the messages", DEADLINE_S)

        texts = [message.partition(b": ")[2].decode() for message in sink.split(b"\n")]
        assert len(sink.connections) == 2
        assert set(texts) == set(sent)  # sent 5,000, arrived 5,000, dropped 0
        assert list(dict.fromkeys(texts)) == sent


@pytest.mark.parametrize(
    ("form", "counted"),
    [
        pytest.param("rfc5424", True, id="RFC 5424"),
        pytest.param("rfc3164", False, id="RFC 3164"),
    ],
)
def test_messages_over_tls_are_framed_as_their_format_demands(
    syslog: Syslog, tmp_path: Path, form: str, counted: bool
) -> None:
    certificate, context = make_certificate(tmp_path)
    with stream_sink(tls=context) as sink:
        logger = syslog.start(
            f"tcp+tls://localhost:{sink.port}",
            syslog_format=form,
            syslog_tls_ca_cert=str(certificate),
        )

        write_lines(logger, numbered(1000))
        code = logger.finish()
        last = numbered(1000)[-1].encode()
        wait_for(lambda: last in sink.connections[0], "the last message", DEADLINE_S)

        assert code == 0
        data = bytes(sink.connections[0])
        messages = read_counted(data) if counted else data.splitlines()
        assert [re.split(rb" - |: ", message)[1].decode() for message in messages] == numbered(1000)


def read_counted(data: bytes) -> list[bytes]:
    """Source: RFC 5425, section 4.3."""
    messages = []
    while data:
        size, _, rest = data.partition(b" ")
        messages.append(rest[: int(size)])
        data = rest[int(size) :]
    return messages


def test_server_without_a_known_certificate_is_not_trusted(syslog: Syslog, tmp_path: Path) -> None:
    _, context = make_certificate(tmp_path)
    with stream_sink(tls=context) as sink:
        logger = syslog.start(f"tcp+tls://localhost:{sink.port}")

        assert logger.ready == b""
        assert "certificate verify failed" in syslog.fault.read_text()


def test_server_is_trusted_unseen_if_wanted(syslog: Syslog, tmp_path: Path) -> None:
    _, context = make_certificate(tmp_path, "other.example")
    with stream_sink(tls=context) as sink:
        logger = syslog.start(f"tcp+tls://localhost:{sink.port}", syslog_tls_skip_verify="true")

        write_lines(logger, ["x"])
        logger.finish()
        wait_for(lambda: bool(sink.connections[0]), "the message", DEADLINE_S)

        assert bytes(sink.connections[0]).endswith(b": x\n")


def test_message_has_the_fields_of_rfc_5424(syslog: Syslog) -> None:
    with datagram_sink() as sink:
        logger = syslog.start(f"udp://127.0.0.1:{sink.port}", syslog_format="rfc5424micro")

        logger.write(b"x\xff\0y\n")
        logger.finish()
        wait_for(lambda: bool(sink.messages), "the message", DEADLINE_S)

        host = socket.gethostname().encode()
        assert re.fullmatch(
            rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z %b 0123456789ab \d+ 0123456789ab - "
            rb"x\xff\0y" % re.escape(host),
            sink.messages[0],
        )


def test_message_has_the_fields_of_rfc_3164(syslog: Syslog) -> None:
    with datagram_sink() as sink:
        logger = syslog.start(
            f"udp://127.0.0.1:{sink.port}", syslog_format="rfc3164", syslog_facility="16"
        )

        write_lines(logger, ["x"])
        logger.finish()
        wait_for(lambda: bool(sink.messages), "the message", DEADLINE_S)

        host = socket.gethostname().encode()
        assert re.fullmatch(
            rb"<134>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d %b 0123456789ab\[\d+\]: x"
            % re.escape(host),
            sink.messages[0],
        )


def test_everything_arrives_at_a_server_that_reads_1_kb_per_second(
    syslog: Syslog, tmp_path: Path
) -> None:
    with stream_sink() as sink:
        sink.bytes_per_s = 1000
        logger = syslog.start(f"tcp://127.0.0.1:{sink.port}")

        write_lines(logger, numbered(30))
        logger.finish()
        wait_for(lambda: len(sink.split(b"\n")) == 30, "the messages", DEADLINE_S)

        assert len(sink.connections) == 1


def test_container_is_not_stopped_by_an_absent_udp_server(syslog: Syslog) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    logger = syslog.start(f"udp://127.0.0.1:{port}")

    write_lines(logger, numbered(5000))
    code = logger.finish()

    assert logger.ready == b"\0"
    assert code == 0


def test_logger_ends_in_time_and_tells_what_is_missing_when_nobody_reads(
    syslog: Syslog, tmp_path: Path
) -> None:
    with stream_sink(tmp_path / "log") as sink:
        sink.reads.clear()
        logger = syslog.start(f"unix://{tmp_path / 'log'}", max_buffer_size="10m")
        write_lines(logger, numbered(50_000))

        logger.end()
        wait_for(logger.has_ended, "the logger to end", 12)

        assert logger.exit_code == 0
        assert re.match(r"syslog: \d+ lines not delivered in time", syslog.read_notes()[-1])


@pytest.mark.parametrize(
    ("address", "text"),
    [
        pytest.param("tcp://127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: ", id="TCP"),
        pytest.param(
            "unix:///nonexistent", "dial unix /nonexistent: connect: no such file", id="unix"
        ),
        pytest.param(
            "unixgram:///nonexistent", "dial unix /nonexistent: connect: no such", id="unixgram"
        ),
    ],
)
def test_container_does_not_start_without_a_server(syslog: Syslog, address: str, text: str) -> None:
    logger = syslog.start(address)

    assert logger.ready == b""
    assert syslog.fault.read_text().startswith(text)


@pytest.mark.parametrize(
    ("address", "options", "text"),
    [
        pytest.param(
            "localhost:514",
            {},
            "syslog-address should be in form proto://address, got localhost:514",
            id="no scheme",
        ),
        pytest.param(
            "http://x", {}, "unsupported scheme 'http' in address 'http://x'", id="scheme"
        ),
        pytest.param(
            "udp://127.0.0.1:9",
            {"syslog_facility": "24"},
            "invalid syslog facility",
            id="facility",
        ),
        pytest.param(
            "udp://127.0.0.1:9", {"syslog_format": "x"}, "Invalid syslog format", id="format"
        ),
    ],
)
def test_container_does_not_start_with_a_wrong_option(
    syslog: Syslog, address: str, options: dict[str, str], text: str
) -> None:
    logger = syslog.start(address, **options)

    assert logger.ready == b""
    assert syslog.fault.read_text() == text
