"""The fluentd driver against a server of the Forward protocol, healthy and not."""

import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fargate_agent.network.blocking import entering
from tests.fixtures.forward import ForwardServer, forward_server, print_numbers, start_to
from tests.fixtures.loggers import (
    CONTAINER_ID,
    DEADLINE_S,
    StartLogger,
    read_text,
    render_flags,
)
from tests.fixtures.machine import wait_for
from tests.fixtures.network import run_ip
from tests.fixtures.programs import require_program

TEXT = "test-e2e-log-0d3f"


@pytest.fixture
def netns() -> Iterator[Path]:
    """A network namespace whose loopback is up, so that port 24224 is free there."""
    name = f"fluentd-{os.getpid()}"
    run_ip("netns", "add", name)
    path = Path("/run/netns") / name
    try:
        run_ip("link", "set", "lo", "up", netns=path)
        yield path
    finally:
        run_ip("netns", "del", name)


# The cases of the end-to-end tests of shim-loggers-for-containerd: what a container printed without
# a newline is there when its deletion returns, under the right tag, with a time that is near.


@pytest.mark.root
def test_defaults_lead_to_port_24224_of_the_task(start_logger: StartLogger, netns: Path) -> None:
    server = ForwardServer(port=24224)
    with entering(netns):
        server.start()
    try:
        logger = start_logger(*render_flags(log_driver="fluentd", netns=netns))
        assert logger.ready == b"\0"
        logger.write(TEXT.encode())
        logger.delete()
    finally:
        server.drain()

    assert server.logs() == [TEXT]
    assert server.entries[0].tag == CONTAINER_ID[:12]


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(
            {
                "fluentd_async": "false",
                "fluentd_sub_second_precision": "true",
                "fluentd_buffer_limit": "1048576",
            },
            id="explicit",
        ),
        pytest.param({"fluentd_async": "true"}, id="async"),
        pytest.param({"fluentd_sub_second_precision": "false"}, id="whole-seconds"),
        pytest.param({"fluentd_tag": "test-tag"}, id="tag"),
        pytest.param({"fluentd_write_timeout": "5s", "fluentd_async": "true"}, id="write-timeout"),
    ],
)
def test_line_is_there_when_the_deletion_returns(
    start_logger: StartLogger, flags: dict[str, str]
) -> None:
    before_ns = time.time_ns()
    with forward_server() as server:
        logger = start_to(start_logger, server, **flags)
        logger.write(TEXT.encode())
        logger.delete()
        server.drain()

    entry = server.entries[0]
    whole = flags.get("fluentd_sub_second_precision") == "false"
    assert server.logs() == [TEXT]
    assert entry.tag == flags.get("fluentd_tag", CONTAINER_ID[:12])
    assert entry.record == {
        "container_id": CONTAINER_ID,
        "container_name": "web",
        "source": "stdout",
        "log": TEXT,
    }
    assert before_ns - 10**9 * whole <= entry.time_ns() <= time.time_ns()
    assert isinstance(entry.time, int) is whole
    assert server.modes == {"message": 1}


# Ways to reach the server.


def test_lines_go_through_a_unix_socket(start_logger: StartLogger, tmp_path: Path) -> None:
    with forward_server(place=tmp_path / "fluent.sock") as server:
        logger = start_to(
            start_logger, server, fluentd_async="true", fluentd_tag="web-firelens-0123"
        )
        sent = print_numbers(logger, 0, 10_000)
        logger.delete()
        server.drain()

    assert server.logs() == sent
    assert {entry.tag for entry in server.entries} == {"web-firelens-0123"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate that signed itself, for `localhost`, and a server that has it."""
    require_program("openssl")
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return certificate, context


@pytest.mark.parametrize("acks", ["true", "false"], ids=["with-acks", "without-acks"])
def test_lines_go_through_tls(
    start_logger: StartLogger, authority: tuple[Path, ssl.SSLContext], acks: str
) -> None:
    certificate, context = authority
    with forward_server(tls=context) as server:
        logger = start_to(
            start_logger, server, fluentd_capath=certificate, fluentd_request_ack=acks
        )
        sent = print_numbers(logger, 0, 10_000)
        logger.delete()
        server.drain()

    assert server.logs() == sent
    assert server.connections == 1


def test_server_that_nobody_vouches_for_is_refused(
    start_logger: StartLogger, authority: tuple[Path, ssl.SSLContext], tmp_path: Path
) -> None:
    with forward_server(tls=authority[1]) as server:
        logger = start_logger(
            *render_flags(
                log_driver="fluentd",
                fluentd_address=server.address,
                fault_path=tmp_path / "fault",
            )
        )

        assert logger.ready == b""
        assert logger.wait() == 1
        assert "certificate verify failed" in (tmp_path / "fault").read_text()


def test_server_that_never_answers_in_tls_is_given_up(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    with forward_server(hangs=True) as server:
        logger = start_logger(
            *render_flags(
                log_driver="fluentd",
                fluentd_address=f"tls://127.0.0.1:{server.port}",
                fault_path=tmp_path / "fault",
            )
        )

        assert logger.ready == b""
        assert logger.wait() == 1
        assert "timed out" in (tmp_path / "fault").read_text()


# Acknowledgements.


@pytest.mark.parametrize(
    ("flags", "asks"),
    [
        pytest.param({}, True, id="blocking"),
        pytest.param({"mode": "non-blocking"}, False, id="non-blocking"),
        pytest.param({"fluentd_request_ack": "false"}, False, id="not-wanted"),
        pytest.param(
            {"mode": "non-blocking", "fluentd_request_ack": "true"}, True, id="always-wanted"
        ),
    ],
)
def test_acknowledgements_are_asked_for_in_blocking_mode_unless_told_otherwise(
    start_logger: StartLogger, flags: dict[str, str], asks: bool
) -> None:
    with forward_server() as server:
        logger = start_to(start_logger, server, max_buffer_size="10m", **flags)
        sent = print_numbers(logger, 0, 20_000)
        logger.delete()
        server.drain()

    assert server.logs() == sent
    assert any("chunk" in entry.option for entry in server.entries) is asks
    assert server.connections == 1


def test_server_that_acknowledges_nothing_gets_every_line_once(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    with forward_server(acks=False) as server:
        logger = start_to(
            start_logger,
            server,
            fluentd_write_timeout="200ms",
            log_path=tmp_path / "web.log",
        )
        sent = print_numbers(logger, 0, 20_000)
        logger.delete()
        server.drain()

    assert server.logs() == sent
    assert "acknowledges nothing" in read_text(tmp_path / "web.log", "stderr")


def test_chunk_is_sent_again_when_its_acknowledgement_does_not_come(
    start_logger: StartLogger,
) -> None:
    with forward_server(acks=False) as server:
        logger = start_to(
            start_logger, server, fluentd_request_ack="true", fluentd_write_timeout="50ms"
        )
        logger.write(b"hello\n")
        wait_for(lambda: len(server.entries) >= 2, "the second attempt", DEADLINE_S)
        server.acks = True
        logger.delete()
        server.drain()

    assert set(server.logs()) == {"hello"}
    assert len({entry.time_ns() for entry in server.entries}) == 1
