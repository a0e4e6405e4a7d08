"""HTTP on a unix socket for the command line on this machine.

Who may open the socket (root, and a group if one is set) may read every task's output and end
every task.
"""

import asyncio
import json
import logging
import os
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from fargate_agent import __version__
from fargate_agent.bad_requests import leave_out_bad_requests
from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.containerd.host_paths import hide_host_paths
from fargate_agent.findings import Finding, Findings
from fargate_agent.image.admin import ImageAdmin
from fargate_agent.image.archive.tar import ImageArchiveError
from fargate_agent.local.images import render_image
from fargate_agent.local.logs import read_logs
from fargate_agent.local.registries import RegistryRoutes
from fargate_agent.local.secrets import SecretRoutes
from fargate_agent.local.tasks import render_task
from fargate_agent.measures.listener import Render, answer
from fargate_agent.task.runner import TaskRun
from fargate_agent.task.status import TaskStatus
from fargate_agent.task.supervisor import Supervisor

log = logging.getLogger(__name__)
leave_out_bad_requests(log)

CHUNK_BYTES: Final = 1024 * 1024
MAX_DRAIN_S: Final = 600
DRAINED: Final = "the agent was told to drain"
_SPOOLED: Final = "load-"
"""How the name of an archive begins that is being loaded."""

TASK_ID: Final = re.compile(r"[0-9a-f-]{32,36}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServer:
    """Answers the command line."""

    supervisor: Supervisor
    images: ImageAdmin
    secrets: SecretRoutes
    registries: RegistryRoutes
    findings: Findings
    """What tasks have met."""
    look: Callable[[], Sequence[Finding]]
    """Looks at the machine; blocks."""
    logs_dir: Path
    log_copy: bool
    """Whether output is kept whatever the log driver."""
    spool_dir: Path
    """Archives are kept here while they are read."""
    is_connected: Callable[[], bool]
    """Whether the control plane is connected."""
    containerd_version: str
    cgroups: str
    """Version of the control groups, and who makes those of tasks."""
    render_metrics: Render
    """Returns what Prometheus reads."""

    async def remove_leftovers(self) -> None:
        """Remove what an agent that was killed had begun to load. What stays is logged."""
        try:
            await asyncio.to_thread(_remove_spooled, self.spool_dir)
            await self.images.remove_leftovers()
        except (OSError, ContainerdError) as error:
            log.warning("could not remove an archive that was being loaded: %s", error)

    @asynccontextmanager
    async def serve(self, path: Path, group: int | None = None) -> AsyncIterator[None]:
        """Listen on the socket while the body runs; `group` may use it as well.

        Raises:
            OSError: the socket can't be made there.
        """
        app = web.Application(client_max_size=0, middlewares=[_errors_as_json])
        app.add_routes(
            [
                web.get("/v1/health", self._health),
                web.get("/v1/doctor", self._doctor),
                web.get("/v1/tasks", self._list_tasks),
                web.get("/v1/tasks/{id}", self._show_task),
                web.get("/v1/tasks/{id}/progress", self._progress),
                web.get("/v1/tasks/{id}/logs", self._logs),
                web.get("/v1/images", self._list_images),
                web.get("/v1/images/unused", self._list_unused_images),
                web.delete("/v1/images", self._remove_image),
                web.post("/v1/images/load", self._load_images),
                web.post("/v1/images/prune", self._prune_images),
                web.post("/v1/drain", self._drain),
                web.get("/metrics", self._metrics),
                *self.secrets.routes(),
                *self.registries.routes(),
            ]
        )
        runner = web.AppRunner(app, access_log=None, logger=log, shutdown_timeout=1)
        await runner.setup()
        listener = await asyncio.to_thread(_listen, path, group)
        try:
            await web.SockSite(runner, listener).start()
            yield
        finally:
            await runner.cleanup()
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "version": __version__,
                "containerd": self.containerd_version,
                "cgroups": self.cgroups,
                "aws": "local" if self.secrets.are_used else "real",
                "controlPlane": "connected" if self.is_connected() else "disconnected",
                "tasks": len(self.supervisor.runs()),
            }
        )

    async def _doctor(self, _: web.Request) -> web.Response:
        """What is so now, then what only a task could meet."""
        seen = await asyncio.to_thread(self.look)
        findings = [{**asdict(found), "met": False} for found in seen]
        findings += [{**asdict(met), "met": True} for met in self.findings if met not in seen]
        return web.json_response({"findings": findings})

    async def _list_tasks(self, _: web.Request) -> web.Response:
        return web.json_response({"tasks": list(map(render_task, self.supervisor.runs()))})

    async def _show_task(self, request: web.Request) -> web.Response:
        return web.json_response(render_task(self._find(request)))

    async def _progress(self, request: web.Request) -> web.StreamResponse:
        run = self._find(request)
        follow = request.query.get("follow", "1") != "0"
        response = await _start_stream(request)
        told: dict[str, dict[str, Any]] = {}
        while True:
            moved = run.moved
            for line in _progress_lines(run):
                if told.get(line["container"]) != line:
                    told[line["container"]] = line
                    await _write_line(response, line)
            pulled = run.facts.pull_stopped_at is not None
            if not follow or pulled or run.facts.status.is_after(TaskStatus.PENDING):
                break
            await moved.wait()
        return response

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        task_id = request.match_info["id"]
        directory = self.logs_dir / task_id
        run = self.supervisor.find(task_id)
        if not TASK_ID.fullmatch(task_id) or (run is None and not directory.is_dir()):
            raise _not_found(f"nothing is known of task {task_id}")
        containers = request.query.getall("container", [])
        self._check_readable(task_id, run, containers)
        with _as_bad_request():
            tail = int(request.query["tail"]) if "tail" in request.query else None
            since = (
                datetime.fromisoformat(request.query["since"]) if "since" in request.query else None
            )
        ended = run.ended if run is not None else _already_set()
        response = await _start_stream(request)
        async for line in read_logs(
            directory,
            containers or None,
            since=since,
            tail=tail,
            follow=request.query.get("follow") == "1",
            ended=ended,
        ):
            await _write_line(
                response,
                {
                    "container": line.container,
                    "stream": line.stream,
                    "time": line.time,
                    "log": line.log,
                },
            )
        return response

    def _check_readable(self, task_id: str, run: TaskRun | None, names: list[str]) -> None:
        """Return if there is, or will be, output of these containers; no names are all."""
        if run is None:
            found = {path.name.partition(".")[0] for path in (self.logs_dir / task_id).iterdir()}
        else:
            found = {container.name for container in run.plan.containers}
        for name in names:
            if name not in found:
                raise _not_found(f"task {task_id} has no output of a container '{name}'")
        if run is None or self.log_copy:
            return
        asked = [c for c in run.plan.containers if not names or c.name in names]
        if not any(c.log.driver == "json-file" or c.log.is_local for c in asked):
            drivers = ", ".join(f"{c.name} logs to {c.log.driver}" for c in asked)
            raise web.HTTPConflict(
                text="the output isn't kept on this machine, as the agent's setting log_copy is"
                f" false: {drivers}"
            )

    async def _list_images(self, _: web.Request) -> web.Response:
        return web.json_response({"images": list(map(render_image, await self.images.list()))})

    async def _remove_image(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        if not await self.images.remove(name):
            raise _not_found(f"there is no image {name}")
        return web.json_response({"removed": [name]})

    async def _load_images(self, request: web.Request) -> web.Response:
        try:
            self.spool_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.spool_dir, prefix=_SPOOLED) as spool:
                async for chunk in request.content.iter_chunked(CHUNK_BYTES):
                    await asyncio.to_thread(spool.write, chunk)
                await asyncio.to_thread(spool.flush)
                names = await self.images.load(Path(spool.name), request.query.get("name"))
        except ImageArchiveError as error:
            raise _bad_request(f"{request.query.get('file', 'archive')}: {error}") from error
        except ConnectionResetError:
            raise
        except OSError as error:
            raise web.HTTPInsufficientStorage(
                text=f"the archive can't be kept in {self.spool_dir}: {error.strerror}"
            ) from error
        return web.json_response({"loaded": names})

    async def _list_unused_images(self, _: web.Request) -> web.Response:
        unused = await self.images.prune(dry_run=True)
        return web.json_response({"unused": unused.names, "freedBytes": unused.freed_bytes})

    async def _prune_images(self, _: web.Request) -> web.Response:
        pruned = await self.images.prune()
        return web.json_response({"removed": pruned.names, "freedBytes": pruned.freed_bytes})

    async def _drain(self, request: web.Request) -> web.Response:
        with _as_bad_request():
            body = await request.json() if request.can_read_body else {}
            timeout_s = min(float(body.get("timeoutSeconds", 60)), MAX_DRAIN_S)
        try:
            async with asyncio.timeout(timeout_s):
                stopped = await self.supervisor.drain(DRAINED)
        except TimeoutError:
            raise web.HTTPGatewayTimeout(
                text=f"some tasks have not ended within {timeout_s:g} s"
            ) from None
        return web.json_response({"stopped": stopped})

    async def _metrics(self, _: web.Request) -> web.Response:
        return await answer(self.render_metrics)

    def _find(self, request: web.Request) -> TaskRun:
        task_id = request.match_info["id"]
        run = self.supervisor.find(task_id)
        if run is None:
            raise _not_found(f"no task {task_id} is here")
        return run


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Any]
) -> web.StreamResponse:
    try:
        answer = await handler(request)
    except web.HTTPException as error:
        return web.json_response({"error": error.text or error.reason}, status=error.status)
    except ConnectionResetError:  # the reader went away; nobody is left to answer
        return web.Response(status=499)
    except ContainerdError as error:
        return web.json_response(
            {"error": f"containerd: {hide_host_paths(str(error))}"}, status=502
        )
    if not isinstance(answer, web.StreamResponse):
        raise TypeError(f"{request.path} answered with {type(answer).__name__}")
    return answer


def _progress_lines(run: TaskRun) -> Iterator[dict[str, Any]]:
    for container in run.plan.containers:
        progress = run.progress.get(container.image)
        if progress is not None:
            yield {
                "container": container.name,
                "image": progress.image,
                "fetchedBytes": progress.fetched_bytes,
                "totalBytes": progress.total_bytes,
                "unpackedLayers": progress.unpacked_layers,
                "totalLayers": progress.total_layers,
                "retry": progress.retry,
                "done": progress.done,
            }


async def _start_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    return response


async def _write_line(response: web.StreamResponse, line: dict[str, Any]) -> None:
    await response.write(json.dumps(line).encode() + b"\n")


def _remove_spooled(spool_dir: Path) -> None:
    for file in spool_dir.glob(f"{_SPOOLED}*"):
        file.unlink(missing_ok=True)


def _listen(path: Path, group: int | None) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)  # before it listens
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(0o660)
    listener.listen()
    return listener


def _already_set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@contextmanager
def _as_bad_request() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError) as error:
        raise _bad_request(str(error)) from error


def _bad_request(text: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=text)


def _not_found(text: str) -> web.HTTPNotFound:
    return web.HTTPNotFound(text=text)
