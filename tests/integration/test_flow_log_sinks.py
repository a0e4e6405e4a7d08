"""Where flow logs go: a file, and a log group of CloudWatch Logs."""

import asyncio
import logging
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fargate_agent.aws.calls import AwsSite
from fargate_agent.aws.cloudwatch_logs import CloudWatchLogs
from fargate_agent.aws.machine_keys import read_machine_keys
from fargate_agent.backoff import Backoff
from fargate_agent.network.flow_logs import log_group
from fargate_agent.network.flow_logs.log_file import LogFile
from fargate_agent.network.flow_logs.log_group import LogGroup, split_events
from fargate_agent.network.flow_logs.records import Batch, Record
from tests.fixtures.cloudwatch import REGION, CloudWatch, running_cloudwatch, running_moto
from tests.fixtures.pulls import eventually

GROUP = "/vpc/flows"
NOW_S = int(datetime.now(UTC).timestamp())
SOON = Backoff(first_s=0.001, longest_s=0.001)


def batch(number: int = 1, *texts: str) -> Batch:
    records = [Record(start_s=NOW_S, text=text) for text in texts or (f"2 a eni-{number}",)]
    return Batch(eni_id=f"eni-{number}", records=tuple(records))


class TestFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "flows.log"

    def test_lines_are_appended_for_their_owner_alone(self, path: Path) -> None:
        path.write_text("2 before\n")
        path.chmod(0o644)
        LogFile(path, 1 << 20, 2).put([batch(1, "2 a", "2 b"), batch(2, "2 c")])

        assert path.read_text() == "2 before\n2 a\n2 b\n2 c\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("before", "after"),
        [("2 a\n2 ha", "2 a\n2 new\n"), ("mine", "mine\n2 new\n"), ("2 ha", "2 new\n")],
    )
    def test_a_record_that_was_cut_short_goes(self, path: Path, before: str, after: str) -> None:
        path.write_text(before)
        LogFile(path, 1 << 20, 2).put([batch(1, "2 new")])

        assert path.read_text() == after

    def test_a_file_that_is_large_is_begun_anew(self, path: Path) -> None:
        sink = LogFile(path, 12, 3)
        for letter in "abcdefghi":
            sink.put([batch(1, f"2 {letter}")])

        kept = {one.name: one.read_text() for one in path.parent.iterdir()}
        assert kept == {
            "flows.log": "2 g\n2 h\n2 i\n",
            "flows.log.1": "2 d\n2 e\n2 f\n",
            "flows.log.2": "2 a\n2 b\n2 c\n",
        }

    def test_one_file_is_one_file(self, path: Path) -> None:
        sink = LogFile(path, 8, 1)
        for letter in "abc":
            sink.put([batch(1, f"2 {letter}")])

        assert [one.name for one in path.parent.iterdir()] == ["flows.log"]
        assert path.read_text() == "2 c\n"

    def test_what_cannot_be_written_is_told_once_and_lost(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink = LogFile(path / "nowhere", 1 << 20, 2)
        sink.put([batch(1), batch(2)])
        sink.put([batch(1)])

        assert sink.take_lost() == {"eni-1", "eni-2"}
        assert not sink.take_lost()
        assert len(caplog.records) == 1

    def test_a_link_is_not_followed(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "other").write_text("")
        path.symlink_to(tmp_path / "other")
        sink = LogFile(path, 1 << 20, 2)
        sink.put([batch(1)])

        assert sink.take_lost() == {"eni-1"}
        assert (tmp_path / "other").read_text() == ""


def test_requests_keep_within_the_limits_of_the_service() -> None:
    many = list(split_events(batch(1, *(["2"] * 25_000))))
    large = list(split_events(batch(1, *(["2" * 10_000] * 250))))

    assert [len(one) for one in many] == [10_000, 10_000, 5_000]
    assert sum(len(one) for one in large) == 250
    for events in large:
        size = sum(len(event.message) + log_group.EVENT_BYTES for event in events)
        assert size <= log_group.MAX_BYTES


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with running_moto() as url:
        yield url


@pytest.fixture
def cloudwatch(moto: str) -> Iterator[CloudWatch]:
    with running_cloudwatch(moto) as cloudwatch:
        yield cloudwatch
        with suppress(cloudwatch.logs.exceptions.ResourceNotFoundException):
            cloudwatch.logs.delete_log_group(logGroupName=GROUP)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


class TestGroup:
    @pytest.fixture
    def keys(self, tmp_path: Path) -> Path:
        keys = tmp_path / "keys"
        keys.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = S\n")
        keys.chmod(0o600)
        return keys

    @pytest.fixture
    def logs(self, cloudwatch: CloudWatch, http: aiohttp.ClientSession, keys: Path) -> Any:
        site = AwsSite(region=REGION, endpoint_url=cloudwatch.url)
        read = partial(read_machine_keys, keys, datetime.now(UTC), "default", "credentials_file")
        return CloudWatchLogs(http, site, read)

    @pytest.fixture
    def sink(self, logs: CloudWatchLogs) -> LogGroup:
        return LogGroup(logs, GROUP, SOON)

    @asynccontextmanager
    async def serving(self, sink: LogGroup) -> AsyncIterator[None]:
        job = asyncio.create_task(sink.serve())
        yield
        job.cancel()
        await asyncio.wait([job])
        await sink.finish()

    def texts(self, cloudwatch: CloudWatch, number: int) -> list[str]:
        return cloudwatch.texts(GROUP, f"eni-{number}-all")

    async def test_each_eni_has_a_stream_which_is_made(
        self, sink: LogGroup, cloudwatch: CloudWatch
    ) -> None:
        async with self.serving(sink):
            sink.put([batch(1, "2 a", "2 b"), batch(2)])
            sink.put([batch(1, "2 c")])

        events = await asyncio.to_thread(cloudwatch.events, GROUP, "eni-1-all")
        assert events == [(NOW_S * 1000, text) for text in ("2 a", "2 b", "2 c")]
        assert await asyncio.to_thread(self.texts, cloudwatch, 2) == ["2 a eni-2"]
        assert not sink.take_lost()

    async def test_another_try_follows_where_it_may_help(
        self, sink: LogGroup, cloudwatch: CloudWatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        cloudwatch.faults += [(400, "ThrottlingException", "slow"), (500, "InternalFailure", "")]
        async with self.serving(sink):
            sink.put([batch(1)])
            await eventually(lambda: len(cloudwatch.puts()) == 1)

        assert await asyncio.to_thread(self.texts, cloudwatch, 1) == ["2 a eni-1"]
        assert not sink.take_lost()
        assert "ThrottlingException" in caplog.text
        assert len(caplog.records) == 1

    async def test_what_is_refused_ends_no_other_stream(
        self, sink: LogGroup, cloudwatch: CloudWatch
    ) -> None:
        cloudwatch.faults.append((400, "InvalidParameterException", "no"))
        async with self.serving(sink):
            sink.put([batch(1)])
            await eventually(lambda: not sink._waiting)
            sink.put([batch(1, "2 next"), batch(2)])

        assert sink.take_lost() == {"eni-1"}
        assert await asyncio.to_thread(self.texts, cloudwatch, 1) == ["2 next"]
        assert await asyncio.to_thread(self.texts, cloudwatch, 2) == ["2 a eni-2"]

    async def test_what_is_tried_in_vain_is_lost(
        self, sink: LogGroup, cloudwatch: CloudWatch
    ) -> None:
        cloudwatch.faults += [(500, "InternalFailure", "")] * log_group.TRIES
        async with self.serving(sink):
            sink.put([batch(1)])
            await eventually(lambda: not sink._waiting)

        assert sink.take_lost() == {"eni-1"}
        assert sink._waiting_bytes == 0

    async def test_what_waits_is_bounded(self, logs: CloudWatchLogs) -> None:
        sink = LogGroup(logs, GROUP, SOON, max_waiting_bytes=100)
        for number in range(10):
            sink.put([batch(number)])

        assert len(sink._waiting) == 2
        assert sink.take_lost() == {f"eni-{number}" for number in range(2, 10)}

    async def test_records_that_the_service_rejects_are_lost(
        self, sink: LogGroup, cloudwatch: CloudWatch
    ) -> None:
        cloudwatch.answers.append({"rejectedLogEventsInfo": {"tooOldLogEventEndIndex": 1}})
        async with self.serving(sink):
            sink.put([batch(1)])

        assert sink.take_lost() == {"eni-1"}

    async def test_the_end_waits_for_no_service_that_is_away(
        self,
        sink: LogGroup,
        cloudwatch: CloudWatch,
        keys: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        keys.chmod(0o644)
        with caplog.at_level(logging.ERROR):
            async with self.serving(sink):
                sink.put([batch(1, "2 a", "2 b")])

        assert f"2 records weren't sent to {GROUP}: credentials_file can be read" in caplog.text
        assert cloudwatch.requests == []

    async def test_the_end_waits_for_a_service_that_is_stuck_for_a_while_only(
        self,
        sink: LogGroup,
        cloudwatch: CloudWatch,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(log_group, "FINISH_S", 0.1)
        cloudwatch.answering.clear()
        async with self.serving(sink):
            sink.put([batch(1), batch(2)])
            await eventually(lambda: len(sink._requests) == 2)

        assert f"2 records weren't sent to {GROUP}" in caplog.text
        assert all(one.done() for one in sink._requests.values())
