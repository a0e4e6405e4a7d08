"""What `fargate login` asks the agent: that a login be checked and kept, or forgotten.

No password leaves by the socket.
"""

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from fargate_agent.image.document import InvalidDocumentError
from fargate_agent.image.registry.auth import (
    AuthFile,
    Credentials,
    name_registry,
    read_auth_file,
)
from fargate_agent.image.registry.checking import LoginCheck, LoginCheckError
from fargate_agent.image.registry.kept_logins import (
    MAX_SECRET_BYTES,
    KeptLogins,
    KeptLoginsError,
    check_login,
)
from fargate_agent.local.bodies import read_body
from fargate_agent.setting_values import check_registry

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 8 * MAX_SECRET_BYTES
"""JSON may take six bytes for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryRoutes:
    """Answers what is asked below `/v1/registries`."""

    logins: KeptLogins
    auth_file: Path | None
    check: LoginCheck
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Who holds it changes the logins."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the local server."""
        return [
            web.get("/v1/registries", self._list),
            web.put("/v1/registries", self._log_in),
            web.delete("/v1/registries", self._log_out),
        ]

    async def _list(self, _: web.Request) -> web.Response:
        try:
            found = await asyncio.to_thread(lambda: list(self._read()))
        except InvalidDocumentError as error:
            raise web.HTTPConflict(text=str(error)) from error
        return web.json_response({"logins": found})

    def _read(self) -> Iterator[dict[str, str]]:
        """Yield the logins that pulls may use; the first for a registry counts. Blocks."""
        places: tuple[tuple[str, AuthFile], ...] = (
            ("login", self.logins.read()),
            ("registry_auth_file", read_auth_file(self.auth_file)),
        )
        for place, auths in places:
            for registry, username in sorted(auths.names()):
                yield {"registry": registry, "username": username, "from": place}

    async def _log_in(self, request: web.Request) -> web.Response:
        registry = _read_registry(request)
        credentials = await _read_credentials(request)
        try:
            check_login(credentials)
            asked = None
            if request.query.get("verify", "1") == "1":
                asked = await self.check.check(registry, credentials)
            async with self.turn:
                replaced = await asyncio.to_thread(self.logins.put, registry, credentials)
        except (KeptLoginsError, LoginCheckError) as error:
            raise web.HTTPBadRequest(text=f"{registry}: {error}") from error
        log.info("the login for registry %s was %s", registry, "replaced" if replaced else "kept")
        return web.json_response({"registry": registry, "replaced": replaced, "asked": asked})

    async def _log_out(self, request: web.Request) -> web.Response:
        registry = _read_registry(request)
        try:
            async with self.turn:
                removed = await asyncio.to_thread(self.logins.remove, registry)
        except KeptLoginsError as error:
            raise web.HTTPConflict(text=str(error)) from error
        if not removed:
            raise web.HTTPNotFound(
                text=f"no login for {registry} is kept; fargate login --list shows those that are"
            )
        log.info("the login for registry %s was removed", registry)
        return web.json_response({"registry": registry})


def _read_registry(request: web.Request) -> str:
    name = name_registry(request.query.get("name", "").strip())
    try:
        return name_registry(check_registry(name).lower())
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"a registry {error}") from None


async def _read_credentials(request: web.Request) -> Credentials:
    """Return the body's user name and password.

    Raises:
        web.HTTPBadRequest: it is too long, or has something else.
    """
    data = await read_body(request, MAX_BODY_BYTES, "user name and password are too long")
    try:
        body: Any = json.loads(data)
        return Credentials(username=_text(body["username"]), password=_text(body["password"]))
    except (ValueError, LookupError, TypeError):
        # Without the cause: it may show a part of the password.
        raise web.HTTPBadRequest(text="the body is no JSON with username and password") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
