"""Answers and errors in EC2's XML; pure.

Source: EC2 API reference, "Response structure" and "Error responses"; botocore, parsers.py,
`EC2QueryParser`.
"""

import re
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from fargate_agent.controlplane.ec2.shapes import NAMESPACE
from fargate_agent.controlplane.validate import Json

_HEAD: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
NO_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What can't stand in a document. Source: XML 1.0, `Char`."""


def render_answer(operation: str, answer: Json, shape: Any, request_id: str) -> bytes:  # noqa: ANN401 - botocore ships no types
    """Return an answer; the members of `answer` are named as in `shape`, times are seconds.

    Without a shape it says only that it is done.
    """
    members = "<return>true</return>" if shape is None else _render_members(answer, shape)
    text = (
        f'<{operation}Response xmlns="{NAMESPACE}">'
        f"{_element('requestId', _escape(request_id))}{members}</{operation}Response>"
    )
    return f"{_HEAD}{text}".encode()


def render_error(code: str, message: str, request_id: str) -> bytes:
    """Return an error."""
    error = _element("Code", _escape(code)) + _element("Message", _escape(message))
    errors = _element("Errors", _element("Error", error))
    request = _element("RequestID", _escape(request_id))
    return f"{_HEAD}{_element('Response', errors + request)}".encode()


def _render_members(value: Json, shape: Any) -> str:  # noqa: ANN401 - any shape
    return "".join(
        _element(member.serialization.get("name", name), _render(value[name], member))
        for name, member in shape.members.items()
        if name in value
    )


def _render(value: Any, shape: Any) -> str:  # noqa: ANN401 - any value, any shape
    match shape.type_name:
        case "structure":
            return _render_members(value, shape)
        case "list":
            name = shape.member.serialization.get("name", "item")
            return "".join(_element(name, _render(item, shape.member)) for item in value)
        case "boolean":
            return "true" if value else "false"
        case "timestamp":
            return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%dT%H:%M:%S}.000Z"
        case _:
            return _escape(str(value))


def _element(name: str, content: str) -> str:
    return f"<{name}>{content}</{name}>" if content else f"<{name}/>"


def _escape(text: str) -> str:
    return escape(NO_XML.sub("?", text), quote=False)
