"""What a network logger loads before its container may start, which waits for that."""

import subprocess
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[2] / "shim-loggers"
LOAD = """
import sys
sys.path.insert(0, sys.argv[1])
import logger
logger.load_driver(sys.argv[2])
print(*sys.modules)
"""
LATER = {
    *("_queue", "select", "reading.pump"),
    *("sending.delivery", "sending.sender", "sending.spool"),
}
"""Reads, buffers and sends."""
LARGE = {"ctypes", "hashlib", "json", "os", "re", "signal", "socket", "ssl", "threading"}
WEB = {"local.json_text", "network.endpoints", "network.web_client"}
TRANSPORTS = {"destinations.gelf_datagrams", "sending.datagrams", "sending.stream", "zlib"}
"""Of which the address needs one."""


@pytest.mark.parametrize(
    ("driver", "spared"),
    [
        pytest.param("awslogs", LATER, id="awslogs"),
        pytest.param(
            "fluentd", (LATER - {"select"}) | WEB | {"reading.lines", "sending.tags"}, id="fluentd"
        ),
        pytest.param(
            "gelf", LATER | TRANSPORTS | {"reading.lines", "network.web_client"}, id="gelf"
        ),
        pytest.param("journald", LATER | WEB | {"reading.lines", "sending.stream"}, id="journald"),
        pytest.param("splunk", LATER, id="splunk"),
        pytest.param("syslog", LATER | WEB | TRANSPORTS | {"reading.lines"}, id="syslog"),
    ],
)
def test_driver_is_loaded_without_what_it_does_not_need_yet(driver: str, spared: set[str]) -> None:
    done = subprocess.run(
        ["/usr/bin/python3", "-ISE", "-c", LOAD, PROGRAMS, driver],
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = set(done.stdout.split())
    assert loaded & (spared | LARGE | {"network.nameservers", "_ctypes"}) == set()
