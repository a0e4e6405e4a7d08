"""Why there are no credentials, and what services refuse."""

from typing import Final

_THROTTLED: Final = frozenset(
    {
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
"""Source: AWS SDKs and Tools reference guide, retry behavior."""


class RoleError(Exception):
    """There are no credentials of a role to be had. The text holds no secret and no path."""

    def __init__(self, text: str, *, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass
        """Another try, after a while, may succeed."""


class AwsError(Exception):
    """A service refused. The text is `<code>: <message>`, as AWS SDKs show it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.may_pass = status >= 500 or code in _THROTTLED
        """Another try may succeed."""
