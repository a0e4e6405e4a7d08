"""Questions and answers of the metadata endpoint, whoever carries them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent back."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> bytes:
        """Return the whole answer as it goes over the wire, to a GET of HTTP/1.1."""
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            f"Date: {formatdate(usegmt=True)}\r\n{more}\r\n"
        )
        return head.encode() + self.body


def refuse(status: int, text: str) -> Answer:
    """Answer with an error as metadata and stats have it: a JSON string.

    Source: amazon-ecs-agent, ecs-agent/tmds/handlers/utils.
    """
    return Answer(status=status, body=json.dumps(text).encode())


def answer_json(status: int, body: object) -> Answer:
    """Answer with an object, on a line of its own: a script's log shows a line when it ends."""
    text = json.dumps(body, separators=(",", ":"))
    return Answer(status=status, body=f"{text}\n".encode())


NOT_FOUND: Final = Answer(status=404, body=b"404 page not found\n", content_type=TEXT)
"""Source: Go, net/http, `NotFound`."""
