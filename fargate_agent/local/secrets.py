"""What `fargate secrets` asks the agent: names, and that a value be kept or forgotten.

No value leaves by the socket.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from aiohttp import web

from fargate_agent.local.bodies import read_body
from fargate_agent.secrets.local_store import MAX_VALUE_BYTES, LocalSecrets, LocalSecretsError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRoutes:
    """Answers what is asked below `/v1/secrets`."""

    store: LocalSecrets
    are_used: bool
    """Whether tasks get these values: this machine does without AWS."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Who holds it changes the values."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the local server."""
        return [
            web.get("/v1/secrets", self._list),
            web.put("/v1/secrets", self._set),
            web.delete("/v1/secrets", self._remove),
        ]

    async def _list(self, _: web.Request) -> web.Response:
        try:
            kept = await asyncio.to_thread(self.store.read)
        except LocalSecretsError as error:
            raise web.HTTPConflict(text=str(error)) from error
        secrets = [
            {"name": name, "setAt": secret.set_at.isoformat()}
            for name, secret in sorted(kept.items())
        ]
        return web.json_response({"secrets": secrets, "used": self.are_used})

    async def _set(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        value = await _read_value(request)
        try:
            async with self.turn:
                replaced = await asyncio.to_thread(self.store.put, name, value)
        except LocalSecretsError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        log.info("secret %s was %s", name, "replaced" if replaced else "set")
        return web.json_response({"set": name, "replaced": replaced, "used": self.are_used})

    async def _remove(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        try:
            async with self.turn:
                removed = await asyncio.to_thread(self.store.remove, name)
        except LocalSecretsError as error:
            raise web.HTTPConflict(text=str(error)) from error
        if not removed:
            raise web.HTTPNotFound(
                text=f"there is no secret {name}; fargate secrets ls has all names"
            )
        log.info("secret %s was removed", name)
        return web.json_response({"removed": name})


async def _read_value(request: web.Request) -> str:
    """Return the body as text.

    Raises:
        web.HTTPBadRequest: it is too long, or isn't text.
    """
    refusal = "the value has more than 64 KiB, which a secret of AWS can't have"
    try:
        return (await read_body(request, MAX_VALUE_BYTES, refusal)).decode()
    except UnicodeDecodeError:
        raise web.HTTPBadRequest(text="the value is not UTF-8 text") from None
