"""Where a logger that has a pattern gets RE2 from: it runs without packages of its own."""

from pathlib import Path

import pytest

from tests.fixtures.awslogs import GROUP, PACKAGES, STREAM, Awslogs
from tests.fixtures.cloudwatch import CloudWatch
from tests.fixtures.loggers import StartLogger

OTHER = """\
import sys
if not sys.executable.endswith("/other"):
    raise ImportError("made for another Python")
__path__ = ["{real}"]
exec(open("{real}/__init__.py").read())
"""
"""A package that only one interpreter can load."""


@pytest.fixture
def other(tmp_path: Path) -> dict[str, str]:
    """Flags of an agent that runs on another Python than the logger."""
    packages = tmp_path / "packages"
    (packages / "re2").mkdir(parents=True)
    (packages / "re2/__init__.py").write_text(OTHER.format(real=PACKAGES / "re2"))
    (tmp_path / "other").symlink_to("/usr/bin/python3")
    return {"awslogs_packages": str(packages), "awslogs_python": str(tmp_path / "other")}


def test_logger_begins_anew_with_the_python_that_the_packages_are_for(
    awslogs: Awslogs, cloudwatch: CloudWatch, start_logger: StartLogger, other: dict[str, str]
) -> None:
    logger = awslogs.start(start_logger, awslogs_multiline_pattern=r"^\p{Lu}", **other)
    assert logger.ready != b""
    logger.write(b"One\n more\nTwo\n")
    assert logger.finish() == 0

    assert cloudwatch.texts(GROUP, STREAM) == ["One\n more\n", "Two\n"]


def test_logger_without_re2_says_so_and_its_container_does_not_start(
    awslogs: Awslogs, start_logger: StartLogger, other: dict[str, str]
) -> None:
    other["awslogs_python"] = "/usr/bin/python3"

    logger = awslogs.start(start_logger, awslogs_multiline_pattern="^E", **other)

    assert logger.ready == b""
    assert logger.wait() == 1
    assert awslogs.fault.read_text() == (
        "awslogs-datetime-format and awslogs-multiline-pattern: google-re2 can't be loaded: "
        "made for another Python"
    )


def test_logger_without_a_pattern_needs_no_re2(
    awslogs: Awslogs, start_logger: StartLogger, other: dict[str, str]
) -> None:
    logger = awslogs.start(start_logger, **other)

    assert logger.ready != b""
    assert logger.finish() == 0


def test_pattern_that_re2_does_not_take_is_named(
    awslogs: Awslogs, start_logger: StartLogger
) -> None:
    logger = awslogs.start(start_logger, awslogs_multiline_pattern="^(?!x)")

    assert logger.ready == b""
    assert logger.wait() == 1
    assert awslogs.fault.read_text() == (
        'awslogs could not parse multiline pattern key "^(?!x)": invalid perl operator: (?!'
    )
