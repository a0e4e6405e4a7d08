"""Flow logs in a log group of CloudWatch Logs, which moto stands for."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import aiohttp
import boto3
import pytest

from fargate_agent.aws.calls import AwsSite
from fargate_agent.aws.errors import AwsError
from fargate_agent.network.flowlogs import log_group
from fargate_agent.network.flowlogs.destination import DestinationError
from fargate_agent.network.flowlogs.log_group import FlowLogGroup
from fargate_agent.role_keys import RoleKeys

KEYS = RoleKeys(access_key="AKIA", secret_key="s3cret", token=None, expires_at=datetime.now(UTC))
AT_S = int(datetime.now(UTC).timestamp())


def read_events(moto: str, group: str) -> dict[str, list[str]]:
    logs = boto3.client(
        "logs",
        region_name="us-east-1",
        endpoint_url=moto,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    return {
        stream["logStreamName"]: [
            event["message"]
            for event in logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
        ]
        for stream in streams
    }


async def test_each_eni_has_a_stream(moto: str) -> None:
    async with aiohttp.ClientSession() as http:
        site = AwsSite(region="us-east-1", endpoint_url=moto)
        destination = FlowLogGroup(http, site, "/flows/each", lambda: KEYS)
        await destination.write({"eni-a": ["one", "two"], "eni-b": ["three"]}, AT_S)
        await destination.write({"eni-a": ["four"]}, AT_S + 60)

    assert await asyncio.to_thread(read_events, moto, "/flows/each") == {
        "eni-a-all": ["one", "two", "four"],
        "eni-b-all": ["three"],
    }


async def test_many_lines_are_sent_in_batches(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_group, "MAX_BATCH_EVENTS", 2)
    lines = [f"line {number}" for number in range(5)]
    async with aiohttp.ClientSession() as http:
        site = AwsSite(region="us-east-1", endpoint_url=moto)
        await FlowLogGroup(http, site, "/flows/many", lambda: KEYS).write({"eni-a": lines}, AT_S)

    assert (await asyncio.to_thread(read_events, moto, "/flows/many"))["eni-a-all"] == lines


class _Refusing(FlowLogGroup):
    """Refuses the lines of one ENI."""

    async def _send(self, keys: RoleKeys, stream: str, lines: Sequence[str], at_s: int) -> None:
        if stream == "eni-a-all":
            raise AwsError(400, "InvalidParameterException", "no")
        await super()._send(keys, stream, lines, at_s)


async def test_what_is_not_taken_of_one_eni_is_told_and_others_are_sent(moto: str) -> None:
    async with aiohttp.ClientSession() as http:
        site = AwsSite(region="us-east-1", endpoint_url=moto)
        destination = _Refusing(http, site, "/flows/other", lambda: KEYS)
        with pytest.raises(DestinationError, match="log group /flows/other: InvalidParameter"):
            await destination.write({"eni-a": ["refused"], "eni-b": ["taken"]}, AT_S)

    assert await asyncio.to_thread(read_events, moto, "/flows/other") == {"eni-b-all": ["taken"]}
