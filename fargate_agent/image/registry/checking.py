"""Whether a registry takes a login, asked through the network of this machine.

Source: OCI distribution specification, "Determining Support"; Docker registry, token
authentication.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from fargate_agent.egress.retry import GaveUpError, Retry, Tries
from fargate_agent.egress.session import open_session
from fargate_agent.egress.transport import RefusedError, TransferError
from fargate_agent.image.reference import DOCKER_HUB, DOCKER_HUB_API
from fargate_agent.image.registry.auth import Credentials
from fargate_agent.image.registry.hosts import Hosts
from fargate_agent.image.registry.login import Logins
from fargate_agent.image.registry.requests import Requests, explain_refusal

CHECK_TIMEOUT_S: Final = 20.0
"""For the registry and its token service together."""

_WHAT: Final = "failed to log in"


class LoginCheckError(Exception):
    """A registry doesn't take a login, or can't be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginCheck:
    """Asks registries."""

    hosts: Hosts

    async def check(self, registry: str, credentials: Credentials) -> bool:
        """Return if the registry takes the login; whether it asked for one at all.

        Raises:
            LoginCheckError: it doesn't, or can't be asked.
        """
        try:
            async with (
                asyncio.timeout(CHECK_TIMEOUT_S),
                open_session(socket.socket, ThreadedResolver(), CHECK_TIMEOUT_S, None) as session,
            ):
                return await self._ask(session, registry, credentials)
        except TimeoutError as error:
            raise LoginCheckError(f"no answer within {CHECK_TIMEOUT_S:g} s") from error
        except (TransferError, GaveUpError) as error:
            raise LoginCheckError(str(error)) from error

    async def _ask(
        self, session: aiohttp.ClientSession, registry: str, credentials: Credentials
    ) -> bool:
        async def find(url: URL, used: str | None) -> Credentials:  # noqa: RUF029 - as it is called
            del url, used
            return credentials

        hosts = self.hosts.for_registry(registry)
        requests = Requests(session, hosts)
        logins = Logins(requests, Tries(retry=Retry(attempts=1, unreachable_attempts=1)), find)
        url = hosts.base(DOCKER_HUB_API if registry == DOCKER_HUB else registry)
        asked, headers = False, dict[str, str]()
        while True:
            response = await requests.send("GET", url, headers, _WHAT)
            try:
                if response.status == 200:
                    return asked
                if response.status == 401 and not asked and await logins.log_in(response, None):
                    asked, headers = True, {"Authorization": logins.authorization(url) or ""}
                    continue
                if response.status == 401:
                    raise RefusedError("the registry refused the user name and the password")
                raise await explain_refusal(response)
            finally:
                response.release()
