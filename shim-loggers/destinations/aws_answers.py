"""What AWS's JSON services answer. Source: AWS JSON 1.1 protocol, in smithy's documentation."""

from local.json_text import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from network.web_client import Answer


class Fault(Exception):  # noqa: N818 - named as the service names it
    """The service has refused a request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.status = status
        self.code = code
        self.message = message


def parse_object(data: bytes) -> "dict[str, Any]":
    """Read a JSON object; what isn't one becomes an empty one."""
    try:
        found = parse_json(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read_fault(answer: "Answer") -> Fault:
    """Read why a request was refused."""
    found = parse_object(answer.body)
    code = str(found.get("__type") or answer.headers.get("x-amzn-errortype", ""))
    code = code.partition(":")[0].rpartition("#")[2]
    message = str(found.get("message") or found.get("Message") or "")
    return Fault(answer.status, code or f"status code {answer.status}", message)
