"""What is wrong with bytes that came in, for people to read."""

from pydantic import ValidationError


def render_faults(error: ValidationError) -> str:
    """Name each field and its fault, in one line; never the value, which may be a secret."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        for fault in error.errors(include_input=False, include_url=False)
    )
