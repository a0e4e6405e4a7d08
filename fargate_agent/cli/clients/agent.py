"""The agent's local socket: what only the agent on this machine knows."""

import asyncio
import json
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, TypeVar, cast

import aiohttp

from fargate_agent.cli.clients.shapes import Health, Run
from fargate_agent.cli.failure import CliError, NotKnownError, UnreachableError

CALL_TIMEOUT_S: Final = 30
LOAD_TIMEOUT_S: Final = 3600
"""An archive may be many GiB, and is unpacked before the answer comes."""
CONNECT_TIMEOUT_S: Final = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """How far the pull of one image has come."""

    container: str
    image: str
    fetched_bytes: int
    total_bytes: int
    """0 until the manifest is known."""
    unpacked_layers: int
    total_layers: int
    retry: str
    """What is being tried again: "try 2 of 5: …"; empty if nothing is."""
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line that a container wrote."""

    container: str
    stream: str
    """`stdout` or `stderr`."""
    time: str
    """RFC 3339, as the logger wrote it."""
    text: str
    """Without the line end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which lines of a task are wanted; None means all."""

    containers: tuple[str, ...] = ()
    """Their names; none are all."""
    follow: bool = False
    tail: int | None = None
    since: str | None = None
    """RFC 3339."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerLife:
    """What has become of a container so far."""

    name: str
    restart_count: int
    runs: list[Run]
    health: Health | None
    """None: it has no health check."""


class Agent:
    """The agent behind one socket. Every failure is a `CliError` that names the socket."""

    def __init__(self, socket: Path) -> None:
        """Remember where; `async with` opens the session."""
        self.socket = socket
        self._session = aiohttp.ClientSession(
            base_url="http://agent",
            connector=aiohttp.UnixConnector(path=str(socket)),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def health(self) -> dict[str, Any]:
        """Versions, and whether the agent is connected to its control plane."""
        return await self._call("GET", "/v1/health")

    async def doctor(self) -> list[dict[str, str]]:
        """What this host denies to tasks, and what that means for them."""
        return list((await self._call("GET", "/v1/doctor"))["findings"])

    async def images(self) -> list[dict[str, Any]]:
        """Every image the agent has."""
        return list((await self._call("GET", "/v1/images"))["images"])

    async def load(self, archive: IO[bytes], file: str, name: str | None) -> list[str]:
        """Import an OCI or Docker archive, and return the names it brought.

        `file` is what errors call the archive, `name` what its only image shall be called.
        """
        answer = await self._call(
            "POST",
            "/v1/images/load",
            params={"file": file, **({} if name is None else {"name": name})},
            body=archive,
            timeout_s=LOAD_TIMEOUT_S,
        )
        return list(answer["loaded"])

    async def remove(self, name: str) -> None:
        """Forget an image."""
        await self._call("DELETE", "/v1/images", params={"name": name})

    async def unused_images(self) -> tuple[list[str], int]:
        """Every image that no task uses, and how many bytes would come back without them."""
        answer = await self._call("GET", "/v1/images/unused", timeout_s=LOAD_TIMEOUT_S)
        return list(answer["unused"]), int(answer["freedBytes"])

    async def prune(self) -> tuple[list[str], int]:
        """Forget every image that no task uses; return their names, and the bytes that came back.

        An agent of before doesn't say how many: 0.
        """
        answer = await self._call("POST", "/v1/images/prune", timeout_s=LOAD_TIMEOUT_S)
        return list(answer["removed"]), int(answer.get("freedBytes", 0))

    async def secrets(self) -> tuple[list[dict[str, str]], bool]:
        """Name and date of every secret that is kept here, and whether tasks get these."""
        answer = await self._call("GET", "/v1/secrets")
        return list(answer["secrets"]), bool(answer["used"])

    async def set_secret(self, name: str, value: bytes) -> bool:
        """Keep a value; return whether tasks get it."""
        answer = await self._call("PUT", "/v1/secrets", params={"name": name}, body=value)
        return bool(answer["used"])

    async def remove_secret(self, name: str) -> None:
        """Forget a value."""
        await self._call("DELETE", "/v1/secrets", params={"name": name})

    async def logins(self) -> list[dict[str, str]]:
        """Registry, user name and place of every login that pulls may use."""
        return list((await self._call("GET", "/v1/registries"))["logins"])

    async def log_in(
        self, registry: str, username: str, password: str, *, verify: bool
    ) -> dict[str, Any]:
        """Keep a login, if the registry takes it; return what is known of it then."""
        return await self._call(
            "PUT",
            "/v1/registries",
            params={"name": registry, "verify": "1" if verify else "0"},
            body={"username": username, "password": password},
        )

    async def log_out(self, registry: str) -> str:
        """Forget a login; return the registry's name."""
        answer = await self._call("DELETE", "/v1/registries", params={"name": registry})
        return str(answer["registry"])

    async def drain(self, timeout_s: int) -> list[str]:
        """Stop every task and take back what the agent made on the host."""
        answer = await self._call(
            "POST",
            "/v1/drain",
            body={"timeoutSeconds": timeout_s},
            timeout_s=timeout_s + CALL_TIMEOUT_S,
        )
        return list(answer["stopped"])

    async def containers(self, task: str) -> list[ContainerLife]:
        """How the containers of a task have fared.

        Raises:
            CliError: the agent can't be asked, or doesn't have the task.
        """
        answer = await self._call("GET", f"/v1/tasks/{task}")
        return [
            ContainerLife(
                name=container["name"],
                restart_count=container["restartCount"],
                runs=[cast(Run, _with_times(run)) for run in container["runs"]],
                health=cast(Health, _with_times(health))
                if (health := container["health"])
                else None,
            )
            for container in answer["containers"]
        ]

    async def progress(self, task: str, *, follow: bool = True) -> AsyncIterator[Pull]:
        """How the pulls of a task go, until they are done or the task has stopped.

        Without `follow`: how they stand now.
        """
        query = [("follow", str(int(follow)))]
        async for line in self._lines(f"/v1/tasks/{task}/progress", query):
            yield Pull(
                container=line["container"],
                image=line["image"],
                fetched_bytes=line["fetchedBytes"],
                total_bytes=line["totalBytes"],
                unpacked_layers=line["unpackedLayers"],
                total_layers=line["totalLayers"],
                retry=line.get("retry", ""),
                done=line["done"],
            )

    async def logs(self, task: str, query: LogQuery) -> AsyncIterator[LogLine]:
        """What the containers of a task wrote; with `follow`, until the task has stopped."""
        wanted = [
            *(("container", name) for name in query.containers),
            ("follow", str(int(query.follow))),
            ("tail", None if query.tail is None else str(query.tail)),
            ("since", query.since),
        ]
        params = [(name, value) for name, value in wanted if value is not None]
        async for line in self._lines(f"/v1/tasks/{task}/logs", params):
            yield LogLine(
                container=line["container"],
                stream=line["stream"],
                time=line["time"],
                text=line["log"].removesuffix("\n"),
            )

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, object] | IO[bytes] | bytes | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> dict[str, Any]:
        async with self._open(method, path, params, body, timeout_s) as response:
            answer = await response.json()
        if not isinstance(answer, dict):
            raise CliError(f"agent at {self.socket}: {path}: the answer is not a JSON object")
        return answer

    async def _lines(
        self, path: str, params: Sequence[tuple[str, str]]
    ) -> AsyncIterator[dict[str, Any]]:
        async with self._open("GET", path, params) as response:
            rest = b""
            async for chunk in response.content.iter_any():  # a line may be of any length
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        body: Mapping[str, object] | IO[bytes] | bytes | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        content = {"json": body} if isinstance(body, Mapping) else {"data": body}
        with self._trouble(path):
            async with self._session.request(
                method, path, params=params, timeout=timeout, **content
            ) as response:
                if response.status >= HTTPStatus.BAD_REQUEST:
                    raise await _refusal(response)
                yield response

    @contextmanager
    def _trouble(self, path: str) -> Iterator[None]:
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            why = error.os_error.strerror or str(error.os_error)
            raise UnreachableError(
                f'no agent answers at {self.socket} ({why}): start one with "fargate up", or set'
                " FARGATE_AGENT_SOCKET"
            ) from error
        except TimeoutError as error:
            raise CliError(f"agent at {self.socket}: {path}: no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(
                f"agent at {self.socket}: {path}: connection lost: {error}"
            ) from error
        except ValueError as error:
            raise CliError(f"agent at {self.socket}: {path}: not JSON: {error}") from error


def ask_agent(socket: Path, question: Callable[[Agent], Coroutine[Any, Any, T]]) -> T:
    """Return what the agent answers to one question; blocks.

    Raises:
        CliError: it can't be reached, or refuses.
    """

    async def ask() -> T:
        async with Agent(socket) as agent:
            return await question(agent)

    return asyncio.run(ask())


def _with_times(document: dict[str, Any]) -> dict[str, Any]:
    return {
        member: datetime.fromisoformat(value)
        if value is not None and (member.endswith("At") or member == "since")
        else value
        for member, value in document.items()
    }


async def _refusal(response: aiohttp.ClientResponse) -> CliError:
    try:
        text = (await response.json(content_type=None))["error"]
    except (ValueError, LookupError, TypeError):
        text = f"{response.status} {response.reason}"
    kind = NotKnownError if response.status == HTTPStatus.NOT_FOUND else CliError
    return kind(f"agent: {text}")
