"""What every test shares: fixtures by topic, and the rules about root."""

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.apart import move_apart

pytest_plugins = [
    "tests.fixtures.containerd",
    "tests.fixtures.network",
    "tests.fixtures.firewall",
    "tests.fixtures.outside",
    "tests.fixtures.flow_logs",
    "tests.fixtures.cni",
    "tests.fixtures.cni_runtimes",
    "tests.fixtures.cni_programs",
    "tests.fixtures.proxied",
    "tests.fixtures.registry",
    "tests.fixtures.registry_client",
    "tests.fixtures.postgres",
    "tests.fixtures.controlplane",
    "tests.fixtures.agents",
    "tests.fixtures.ecs",
    "tests.fixtures.events",
    "tests.fixtures.aws",
    "tests.fixtures.stack",
    "tests.fixtures.runtime",
    "tests.fixtures.tmds",
    "tests.fixtures.loggers",
    "tests.fixtures.awslogs",
    "tests.fixtures.up",
]

NEEDS_ROOT = "needs root"
GC_THRESHOLDS = 50_000, 20, 100
"""A process of pytest holds a million objects for good. With Python's default, looking through them
takes it half of its time."""
FORWARDING = [Path(f"/proc/sys/net/ipv{version}/conf/all/forwarding") for version in (4, 6)]


def pytest_configure() -> None:
    """Forget what started this: no test may depend on it.

    A shell starts what runs in the background deaf to Ctrl-C, and its children would be so too.
    xdist tells its processes how wide the terminal is.
    """
    os.environ.pop("COLUMNS", None)
    gc.set_threshold(*GC_THRESHOLDS)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.geteuid() == 0:
        with tempfile.TemporaryDirectory() as empty:
            move_apart(Path(empty))


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run with SQLite alone what no database can matter to; everything else runs with both."""
    definition = metafunc.definition
    if definition.get_closest_marker("one_store") and "database" in metafunc.fixturenames:
        definition.add_marker(pytest.mark.parametrize("database", ["sqlite"], indirect=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root on a contributor's laptop; under CI its absence is an error."""
    is_root = os.geteuid() == 0
    if not is_root and os.environ.get("CI") == "true":
        raise pytest.UsageError("CI must run as root: the root tier can't be skipped there")
    for item in items:
        needs_root = any(map(item.get_closest_marker, ("root", "e2e")))
        if needs_root and not is_root:
            item.add_marker(pytest.mark.skip(reason=NEEDS_ROOT))


def pytest_collection_finish() -> None:
    """Leave what lives to the end out of every look for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def host_forwards_as_before() -> Iterator[None]:
    """A test that leaves forwarding on would make the host a router for all after it."""
    before = [_read(setting) for setting in FORWARDING]
    yield
    assert [_read(setting) for setting in FORWARDING] == before


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out for want of root, and what would run it."""
    skipped = terminalreporter.getreports("skipped")
    count = sum(NEEDS_ROOT in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(
            f"{count} tests were left out, because they need root: real containers, networks and"
            " control groups. sudo make test runs them."
        )
