"""What services of AWS, or what stands for AWS, answer: read with distrust."""

import json
from typing import Any, Final
from xml.etree import ElementTree

from fargate_agent.aws.errors import AwsError
from fargate_agent.role_keys import RoleKeys

MAX_CODE_CHARS: Final = 200
MAX_MESSAGE_CHARS: Final = 1000
HIDDEN: Final = "…"


def refusal(status: int, code: str, message: str, keys: RoleKeys) -> AwsError:
    """Return the error of a refusal, in which nothing of the keys is left.

    Of the message only the first line counts: where a signature is wrong the rest is the request as
    the service has seen it, with the session token.
    Source: AWS Identity and Access Management user guide, troubleshooting Signature Version 4.
    """
    line = message.strip().partition("\n")[0]
    for secret in (keys.token, keys.secret_key):
        if secret:
            line = line.replace(secret, HIDDEN)
    return AwsError(status, code[:MAX_CODE_CHARS], line[:MAX_MESSAGE_CHARS])


def read_json(body: bytes) -> dict[str, Any] | None:
    """Return the object that an answer is; None for anything else."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def read_members(body: bytes) -> dict[str, str]:
    """Return the text of every element by its name; nothing for what is no XML.

    Of elements with one name the last counts.
    """
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - expat bounds what entities grow to
    except (ElementTree.ParseError, LookupError, ValueError):  # the two: of an unusual encoding
        return {}
    return {one.tag.rpartition("}")[2]: (one.text or "").strip() for one in root.iter()}
