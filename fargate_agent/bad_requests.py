"""Faults of those who call our HTTP servers: they are told, our log is not filled with them."""

import logging

from aiohttp import web
from aiohttp.http import HttpProcessingError


def leave_out_bad_requests(log: logging.Logger) -> None:
    """Keep what `aiohttp` says of requests and bodies that make no sense out of a server's log."""
    log.addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)
