"""What a plugin answers instead of a result.

Source: containernetworking/cni, SPEC.md 1.1.0, "Error"; pkg/types/types.go.
"""

from typing import Final

INCOMPATIBLE_VERSION: Final = 1
UNSUPPORTED_FIELD: Final = 2
UNKNOWN_CONTAINER: Final = 3
INVALID_ENVIRONMENT: Final = 4
IO_FAILURE: Final = 5
DECODE_FAILURE: Final = 6
INVALID_CONFIG: Final = 7
INVALID_NETNS: Final = 8
TRY_AGAIN_LATER: Final = 11
NOT_AVAILABLE: Final = 50
FAILED: Final = 100
"""The first number that is a plugin's own. Source: amazon-ecs-cni-plugins, which has no other."""
INTERNAL: Final = 999


class CniError(Exception):
    """A plugin can't do what it was asked. Its text reaches the runtime as it is."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        """Record the message and its number."""
        super().__init__(message)
        self.message = message
        self.code = code
