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
    """Forget what started this: no test may depend on it.

    A shell starts what runs in the background deaf to Ctrl-C, and its children would be so too.
    xdist tells its processes how wide the terminal is.
    """
    os.environ.pop("COLUMNS", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root on a contributor's laptop; under CI its absence is an error.

    With `-n`, a file is a group, whose tests follow each other in one process. So are, all
    together, the tests that change the machine: each looks at what others would leave behind.
    """
    is_root = os.geteuid() == 0
    if not is_root and os.environ.get("CI") == "true":
        raise pytest.UsageError("CI must run as root: the root tier can't be skipped there")
    for item in items:
        needs_root = any(map(item.get_closest_marker, ("root", "e2e")))
        alone = needs_root or item.get_closest_marker("checkout")
        item.add_marker(pytest.mark.xdist_group("machine" if alone else item.path.stem))
        if needs_root and not is_root:
            item.add_marker(pytest.mark.skip(reason="needs root"))
