"""Amazon CloudWatch Logs: groups and streams are made, and events are put into streams.

Source: Amazon CloudWatch Logs API reference, 2014-03-28.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from fargate_agent.aws.calls import AwsCall, AwsSite, call_json
from fargate_agent.aws.errors import AwsError
from fargate_agent.egress.transport import TransferError
from fargate_agent.role_keys import RoleKeys

CALL_TIMEOUT_S: Final = 10.0
NOT_THERE: Final = "ResourceNotFoundException"
_THERE: Final = "ResourceAlreadyExistsException"


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event."""

    timestamp_ms: int
    message: str


class CloudWatchLogs:
    """The service in one region, asked with one set of keys."""

    def __init__(
        self, http: aiohttp.ClientSession, site: AwsSite, read_keys: Callable[[], RoleKeys]
    ) -> None:
        """`read_keys` blocks, and raises `RoleError` if there are none; it is asked each time."""
        self._http = http
        self._site = site
        self._read_keys = read_keys

    async def put(self, group: str, stream: str, events: Sequence[LogEvent]) -> int:
        """Put events into a stream, which is made if it isn't there, as its group is.

        The caller keeps within the limits of PutLogEvents. Returns how many weren't taken.

        Raises:
            AwsError: it was refused.
            RoleError: there are no keys.
            TransferError: no answer came.
        """
        request = {
            "logGroupName": group,
            "logStreamName": stream,
            "logEvents": [
                {"timestamp": event.timestamp_ms, "message": event.message} for event in events
            ],
        }
        try:
            answer = await self._call("PutLogEvents", request)
        except AwsError as error:
            if error.code != NOT_THERE:
                raise
            await self._make(group, stream)
            answer = await self._call("PutLogEvents", request)
        return _count_rejected(answer.get("rejectedLogEventsInfo"), len(events))

    async def _make(self, group: str, stream: str) -> None:
        request = {"logGroupName": group, "logStreamName": stream}
        try:
            await self._ensure("CreateLogStream", request)
        except AwsError as error:
            if error.code != NOT_THERE:
                raise
            await self._ensure("CreateLogGroup", {"logGroupName": group})
            await self._ensure("CreateLogStream", request)

    async def _ensure(self, operation: str, request: dict[str, Any]) -> None:
        try:
            await self._call(operation, request)
        except AwsError as error:
            if error.code != _THERE:
                raise

    async def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        keys = await asyncio.to_thread(self._read_keys)
        call = AwsCall(
            service="logs",
            region=self._site.region,
            content_type="application/x-amz-json-1.1",
            target=f"Logs_20140328.{operation}",
            body=json.dumps(request, separators=(",", ":")).encode(),
        )
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await call_json(self._http, self._site, keys, call, may_be_empty=True)
        except TimeoutError:
            raise TransferError(f"logs: no answer within {CALL_TIMEOUT_S:g} s") from None


def _count_rejected(info: object, count: int) -> int:
    """Return how many events of a request weren't taken; the indexes are those of its events.

    Source: CloudWatch Logs API, `RejectedLogEventsInfo`: the ends are exclusive.
    """
    if not isinstance(info, dict):
        return 0
    old = max(
        (
            info[name]
            for name in ("expiredLogEventEndIndex", "tooOldLogEventEndIndex")
            if isinstance(info.get(name), int)
        ),
        default=0,
    )
    new = info.get("tooNewLogEventStartIndex")
    return min(old + (count - new if isinstance(new, int) else 0), count)
