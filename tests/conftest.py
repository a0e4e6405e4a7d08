"""What every test shares: fixtures by topic, and the rules about root."""

import os
import signal

import pytest

pytest_plugins = [
    "tests.fixtures.containerd",
    "tests.fixtures.network",
    "tests.fixtures.registry",
    "tests.fixtures.postgres",
    "tests.fixtures.controlplane",
    "tests.fixtures.agents",
    "tests.fixtures.ecs",
    "tests.fixtures.events",
    "tests.fixtures.stack",
    "tests.fixtures.runtime",
    "tests.fixtures.aws",
    "tests.fixtures.loggers",
    "tests.fixtures.awslogs",
]


def pytest_configure() -> None:
    """A shell starts what runs in the background deaf to Ctrl-C; its children would be so too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root on a contributor's laptop; under CI its absence is an error."""
    if os.geteuid() == 0:
        return
    if os.environ.get("CI") == "true":
        raise pytest.UsageError("CI must run as root: the root tier can't be skipped there")
    for item in items:
        if item.get_closest_marker("root") or item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.skip(reason="needs root"))
