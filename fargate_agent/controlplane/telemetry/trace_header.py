"""The trace that a caller is in, which its tasks' starts become a part of."""

import re

from fargate_agent.wire.messages import TRACEPARENT


def find_trace(header: str) -> str | None:
    """Return the header `traceparent` if it is one; what isn't is passed over, as W3C says."""
    return header if re.fullmatch(TRACEPARENT, header) else None
