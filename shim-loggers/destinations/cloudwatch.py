"""CloudWatch Logs: one log stream, and what can be done with it.

Source: CloudWatch Logs API reference.
"""

import time

from destinations.aws_answers import Fault, parse_object, read_fault
from destinations.events import Events, render_batch
from destinations.sigv4 import Scope, render_signature
from destinations.task_credentials import Credentials
from local.json_text import quote
from network.web_client import WebClient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TARGET = "Logs_20140328."
NOT_FOUND = "ResourceNotFoundException"
EXISTS = "ResourceAlreadyExistsException"
BAD_TOKEN = "InvalidSequenceTokenException"  # noqa: S105
ACCEPTED = "DataAlreadyAcceptedException"
BAD_KEYS = ("ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId")
REFUSED = ("InvalidParameterException", "SerializationException", "ValidationException")
"""Codes of faults that the same events would meet again."""
TOO_LARGE = 413
"""Said by servers before the service, to which a megabyte is too much."""
BUSY = ("ThrottlingException", "ServiceUnavailableException", "OperationAbortedException")
TOO_MANY = 429
SERVER_ERROR = 500


class LogStream:
    """A stream of a group, by name."""

    def __init__(self, group: str, name: str, *, create_group: bool) -> None:
        self._group = b'"logGroupName":' + quote(group)
        self._stream = self._group + b',"logStreamName":' + quote(name)
        self._create_group = create_group
        self._token = b""

    def create(self, logs: "CloudWatchLogs") -> None:
        """Create it, and its group if that may be done, unless they are there.

        Raises:
            Fault, OSError: it isn't there.
        """
        try:
            logs.create("CreateLogStream", self._stream)
        except Fault as fault:
            if fault.code != NOT_FOUND or not self._create_group:
                raise
            logs.create("CreateLogGroup", self._group)
            logs.create("CreateLogStream", self._stream)

    def put(self, logs: "CloudWatchLogs", batch: list[Events]) -> "dict[str, Any]":
        """Append events; return which of them were rejected, and why.

        Raises:
            Fault, OSError: none was taken.
        """
        try:
            answer = logs.call("PutLogEvents", self._render(batch))
        except Fault as fault:
            if fault.code == ACCEPTED:
                return {}
            if fault.code != BAD_TOKEN:
                raise
            expected = fault.message.rpartition(" ")[2]
            self._token = b'"sequenceToken":%b,' % quote(expected) if expected != "null" else b""
            answer = logs.call("PutLogEvents", self._render(batch))
        rejected = parse_object(answer).get("rejectedLogEventsInfo")
        return rejected if isinstance(rejected, dict) else {}

    def _render(self, batch: list[Events]) -> bytes:
        begin = b'{%b,%b"logEvents":[' % (self._stream, self._token)
        return render_batch(begin, batch, b"]}")


class CloudWatchLogs:
    """The service."""

    def __init__(self, url: str, client: WebClient, region: str, credentials: Credentials) -> None:
        self._url = url
        self._client = client
        self._scope = Scope(region, "logs")
        self._credentials = credentials
        self._headers = {"Content-Type": "application/x-amz-json-1.1"}

    def announce_format(self, log_format: str) -> None:
        """Say with every request what the events are, e.g. `json/emf`."""
        self._headers["x-amzn-logs-format"] = log_format

    def create(self, operation: str, names: bytes) -> None:
        """Create something, or find it there.

        Raises:
            Fault, OSError: neither.
        """
        try:
            self.call(operation, b"{%b}" % names)
        except Fault as fault:
            if fault.code != EXISTS:
                raise

    def call(self, operation: str, body: bytes) -> bytes:
        """Ask for something; keys that have ended are changed for others.

        Raises:
            Fault: the service has refused it.
            OSError: it can't be reached, or there are no keys to sign with.
        """
        try:
            return self._call(operation, body)
        except Fault as fault:
            if fault.code not in BAD_KEYS:
                raise
        self._credentials.refuse()
        return self._call(operation, body)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _call(self, operation: str, body: bytes) -> bytes:
        keys = self._credentials.find_keys()
        headers = {
            **self._headers,
            "X-Amz-Target": TARGET + operation,
            "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        }
        if keys.token:
            headers["X-Amz-Security-Token"] = keys.token
        signed = {**headers, "Host": self._client.host}
        headers["Authorization"] = render_signature(self._scope, keys, "/", signed, body)
        try:
            answer = self._client.request("POST", "/", headers, body)
        except OSError as error:
            # Source: aws-sdk-go, aws/request, and Go's net/url.
            text = f'send request failed caused by: Post "{self._url}/": {error}'
            kind = TimeoutError if isinstance(error, TimeoutError) else OSError
            raise kind(f"RequestError: {text}") from error
        if answer.status != 200:
            raise read_fault(answer)
        return answer.body
