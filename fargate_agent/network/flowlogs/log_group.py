"""Flow logs in a log group of CloudWatch Logs, a stream for each ENI.

Source: CloudWatch Logs API, PutLogEvents; Amazon VPC User Guide, "Publish flow logs to CloudWatch
Logs".
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import aiohttp

from fargate_agent.aws.calls import AwsCall, AwsSite, call_json
from fargate_agent.aws.errors import AwsError
from fargate_agent.egress.transport import TransferError
from fargate_agent.network.flowlogs.destination import Destination, DestinationError
from fargate_agent.parallel import together
from fargate_agent.role_keys import RoleKeys
from fargate_agent.threads import in_thread

MAX_BATCH_EVENTS: Final = 10_000
MAX_BATCH_BYTES: Final = 1_048_576
EVENT_OVERHEAD_BYTES: Final = 26
AT_ONCE: Final = 4
"""Streams that are written side by side."""
_CONTENT_TYPE: Final = "application/x-amz-json-1.1"
_TARGET: Final = "Logs_20140328"
_EXISTS: Final = "ResourceAlreadyExistsException"
_ABSENT: Final = "ResourceNotFoundException"


class FlowLogGroup(Destination):
    """Sends lines with the keys of this machine, through its own network."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        site: AwsSite,
        group: str,
        read_keys: Callable[[], RoleKeys],
    ) -> None:
        """`read_keys` may block, and may raise `AwsError`'s kin or `OSError`."""
        self._http = http
        self._site = site
        self._group = group
        self._read_keys = read_keys

    async def write(self, lines: Mapping[str, Sequence[str]], at_s: int) -> None:
        faults: list[str] = []
        keys = await in_thread(self._read_keys)
        waiting = iter(sorted(lines.items()))

        async def send() -> None:
            for eni_id, of_eni in waiting:
                try:
                    await self._send(keys, f"{eni_id}-all", of_eni, at_s)
                except (AwsError, TransferError) as error:
                    faults.append(str(error))

        await together(send() for _ in range(AT_ONCE))
        if faults:
            raise DestinationError(f"log group {self._group}: {faults[0]}")

    async def _send(self, keys: RoleKeys, stream: str, lines: Sequence[str], at_s: int) -> None:
        """Send the lines of one ENI; group and stream are made when they are missed."""
        for batch in _cut(lines):
            events = [{"timestamp": at_s * 1000, "message": line} for line in batch]
            request = {"logGroupName": self._group, "logStreamName": stream, "logEvents": events}
            try:
                await self._call(keys, "PutLogEvents", request)
            except AwsError as error:
                if error.code != _ABSENT:
                    raise
                await self._make(keys, stream)
                await self._call(keys, "PutLogEvents", request)

    async def _make(self, keys: RoleKeys, stream: str) -> None:
        for operation, request in (
            ("CreateLogGroup", {"logGroupName": self._group}),
            ("CreateLogStream", {"logGroupName": self._group, "logStreamName": stream}),
        ):
            with suppress(_ExistsError):
                await self._call(keys, operation, request)

    async def _call(self, keys: RoleKeys, operation: str, request: Mapping[str, Any]) -> None:
        call = AwsCall(
            service="logs",
            region=self._site.region,
            content_type=_CONTENT_TYPE,
            target=f"{_TARGET}.{operation}",
            body=json.dumps(request).encode(),
        )
        try:
            await call_json(self._http, self._site, keys, call)
        except AwsError as error:
            raise (_ExistsError() if error.code == _EXISTS else error) from error


class _ExistsError(Exception):
    """What was to be made is there."""


def _cut(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the lines in batches that one request takes."""
    batch: list[str] = []
    size_bytes = 0
    for line in lines:
        needed = len(line) + EVENT_OVERHEAD_BYTES
        if batch and (len(batch) == MAX_BATCH_EVENTS or size_bytes + needed > MAX_BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(line)
        size_bytes += needed
    if batch:
        yield batch
