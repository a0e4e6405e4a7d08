"""The calls an agent makes to the control plane: JSON 1.1 over HTTP, signed with SigV4."""

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

TARGET_PREFIX: Final = "AmazonEC2ContainerServiceV20141113"
"""Source: ECS service model, metadata.targetPrefix."""

CALL_TIMEOUT_S: Final = 30
"""Source: amazon-ecs-agent, ecs-agent/api/ecs/client, round trip limit."""


class ControlPlaneError(Exception):
    """The control plane answered with an error."""

    def __init__(
        self, code: str, message: str, *, status: int = 400, request_id: str | None = None
    ) -> None:
        """Keep the modelled name of the exception, e.g. `InvalidParameterException`."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.request_id = request_id


class ControlPlaneUnreachableError(Exception):
    """No answer came, or none that makes sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A key; what botocore's signer reads of its own, larger class."""

    access_key: str
    secret_key: str = field(repr=False)
    token: None = None


class ControlPlane:
    """The control plane, as one agent calls it; one of several that share their state."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        urls: Sequence[str],
        credentials: Credentials,
        region: str,
    ) -> None:
        """`urls` has one at least; the next is asked when one can't be."""
        self._http = http
        self._urls = deque(f"{url.rstrip('/')}/" for url in urls)
        self._signer = SigV4Auth(credentials, "ecs", region)

    async def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Call one operation and return its answer.

        Raises:
            ControlPlaneError: the control plane refused.
            ControlPlaneUnreachableError: it could not be asked.
        """
        body, url = json.dumps(request).encode(), self._urls[0]
        headers = self.sign(
            "POST",
            url,
            body,
            {
                "Content-Type": "application/x-amz-json-1.1",
                "X-Amz-Target": f"{TARGET_PREFIX}.{operation}",
            },
        )
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
        try:
            async with self._http.post(
                url, data=body, headers=headers, timeout=timeout
            ) as response:
                answer = await response.json(content_type=None)
                status = response.status
                request_id = response.headers.get("x-amzn-RequestId")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._turn_from(url)
            raise ControlPlaneUnreachableError(
                f"{operation}: {url}: {str(error) or type(error).__name__}"
            ) from error
        if not isinstance(answer, dict):
            raise ControlPlaneUnreachableError(f"{operation}: the answer is not an object")
        if status != 200:
            code = str(answer.get("__type", f"HTTP {status}")).rpartition("#")[2]
            message = str(answer.get("message", ""))
            raise ControlPlaneError(code, message, status=status, request_id=request_id)
        return answer

    def _turn_from(self, url: str) -> None:
        """Ask another the next time, unless another call has seen to that."""
        if self._urls[0] == url:
            self._urls.rotate(-1)

    def sign(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> dict[str, str]:
        """Return the headers with those of SigV4 added."""
        request = AWSRequest(method=method, url=url, data=body, headers=headers)
        self._signer.add_auth(request)
        return dict(request.headers.items())
