"""The agent's websocket to the control plane (ACS): register, connect, read, back off.

Source of rules and numbers: amazon-ecs-agent, ecs-agent/acs/session/session.go.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp

from fargate_agent import __version__
from fargate_agent.acs.api import ControlPlane, ControlPlaneError, ControlPlaneUnreachableError
from fargate_agent.acs.responder import Responder
from fargate_agent.backoff import Backoff
from fargate_agent.files import replace_file
from fargate_agent.parallel import first_of
from fargate_agent.telemetry.outbox import Outbox
from fargate_agent.wire.arns import CLUSTERS, EVERY_CLUSTER
from fargate_agent.wire.attributes import Attribute
from fargate_agent.wire.messages import Frame, parse_frame, render_frame

log = logging.getLogger(__name__)

ARN_FILE: Final = "container-instance-arn"
"""In the agent's state directory: its container instance, over restarts."""
CONNECT_TIMEOUT_S: Final = 30
"""For the dial and the handshake."""
SEND_TIMEOUT_S: Final = 30
"""How long the control plane may leave a frame unread before the connection is given up."""
INACTIVITY_S: Final = 60
INACTIVITY_JITTER_S: Final = 60
"""Nothing heard for this long closes the connection."""
MAX_AGE_S: Final = 30 * 60
MAX_AGE_JITTER_S: Final = 5 * 60
"""An older connection is made anew."""
LOOK_EVERY_S: Final = 10
"""How often the agent looks whether the machine can do what was said."""
ACCESS_DENIED: Final = "AccessDeniedException"
ADVICE: Final = (
    "the agent's key isn't allowed to serve every cluster: set clusters = [\"default\"], or allow "
    "the key ecs:RegisterContainerInstance on cluster/*"
)
"""What the log says when its key isn't allowed that."""
BACKOFF: Final = Backoff(first_s=0.25, longest_s=15, factor=1.5)
"""Between attempts to connect. ACS has 2 min at most; a control plane near by returns sooner."""
_STORAGE: Final = "STORAGE"
"""Resource of a container instance, in GiB, by which the control plane places tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """How this machine presents itself."""

    clusters: tuple[str, ...]
    """Those whose tasks may run here; the first is where the agent registers. Empty: every one,
    and the control plane's default cluster is where it registers."""
    cpu_units: int
    memory_mib: int
    read_attributes: Callable[[], tuple[Attribute, ...]]
    """Says what the machine can do now; blocks."""
    arn_file: Path
    """Keeps the container instance's ARN over restarts."""
    read_storage_gib: Callable[[], int | None] = lambda: None
    """Says how much can be promised to the ephemeral volumes of all tasks; None: that isn't
    counted. Blocks."""


class Session:
    """Keeps the agent connected, and hands each message to the responder."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        control_plane: ControlPlane,
        registration: Registration,
        responder: Responder,
        outbox: Outbox | None = None,
    ) -> None:
        """`outbox` has what is to be sent unasked."""
        self._http = http
        self._control_plane = control_plane
        self._registration = registration
        self._responder = responder
        self._outbox = Outbox() if outbox is None else outbox
        self._attributes: tuple[Attribute, ...] = ()
        """What the control plane knows that this machine can do."""
        self.instance_arn = ""
        """Who the agent is; empty before it has registered."""
        self.connections = 0
        """How many it had by now."""
        self.received = 0
        """Frames of the control plane, on all of them."""
        self.connected = False
        self.has_connected = asyncio.Event()
        """Set for good with the first connection."""
        self.fault = ""
        """Why the last attempt to connect failed."""

    async def serve(self) -> None:
        """Stay connected, until cancelled."""
        pauses_s = BACKOFF.pauses_s()
        while True:
            try:
                await self._connect()
            except (ControlPlaneError, ControlPlaneUnreachableError, aiohttp.ClientError) as error:
                self.fault = str(error)
                log.warning("not connected to the control plane: %s", error)
            except (OSError, TimeoutError) as error:
                self.fault = repr(error)
                log.warning("the connection to the control plane broke: %r", error)
            else:
                log.info("the connection to the control plane has ended")
                pauses_s = BACKOFF.pauses_s()
            await asyncio.sleep(next(pauses_s))

    async def _connect(self) -> None:
        """Hold one connection until either side ends it."""
        self.instance_arn = instance_arn = await self._register()
        endpoint = await self._control_plane.call(
            "DiscoverPollEndpoint",
            {"cluster": _cluster_of(instance_arn), "containerInstance": instance_arn},
        )
        query = urlencode(
            {
                "agentHash": "none",
                "agentVersion": __version__,
                "clusterArn": _cluster_of(instance_arn),
                "containerInstanceArn": instance_arn,
                "dockerVersion": "containerd",
                "protocolVersion": "2",
                "seqNum": "1",
                "sendCredentials": str(self._responder.lacks_credentials()).lower(),
            }
        )
        url = f"{str(endpoint['endpoint']).rstrip('/')}/ws?{query}"
        headers = self._control_plane.sign("GET", url, b"", {})
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            websocket = await self._http.ws_connect(url, headers=headers)
        async with websocket:
            self.connected = True
            self.connections += 1
            self.has_connected.set()
            log.info("connected to the control plane as %s", instance_arn)
            try:
                await first_of(
                    self._read(websocket), self._tell_changes(), self._publish(websocket)
                )
            finally:
                self.connected = False

    async def _publish(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        """Send what nobody has asked for, such as telemetry, as it comes."""
        while True:
            frame = await self._outbox.first()
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await websocket.send_str(render_frame(frame))
            self._outbox.note_sent(frame)

    async def _tell_changes(self) -> None:
        """Register again when the machine can do more or less than was said."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if await asyncio.to_thread(self._registration.read_attributes) != self._attributes:
                log.info("the machine has changed: the agent registers again")
                await self._register()

    async def _read(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        inactivity_s = INACTIVITY_S + random.uniform(0, INACTIVITY_JITTER_S)  # noqa: S311 - no secret
        age_s = MAX_AGE_S + random.uniform(0, MAX_AGE_JITTER_S)  # noqa: S311 - no secret
        loop = asyncio.get_running_loop()
        end_s = loop.time() + age_s
        async with asyncio.TaskGroup() as answers:
            while loop.time() < end_s:
                try:
                    received = await websocket.receive(timeout=inactivity_s)
                except TimeoutError:
                    log.warning("the control plane said nothing for %.0f s", inactivity_s)
                    break
                if received.type is not aiohttp.WSMsgType.TEXT:
                    return
                self.received += 1
                frame = _parse(received.data)
                if frame is not None:
                    answers.create_task(self._answer(websocket, frame))
        # Source of the words: amazon-ecs-agent, ecs-agent/wsclient/client.go.
        await websocket.close(message=b"ConnectionExpired: Reconnect to continue")

    async def _answer(self, websocket: aiohttp.ClientWebSocketResponse, frame: Frame) -> None:
        """Answer one frame; what can't be sent any more is asked again on the next connection."""
        for reply in await self._responder.answer(frame):
            with suppress(ConnectionError):
                await websocket.send_str(render_frame(reply))

    async def _register(self) -> str:
        """Register once; the ARN is kept over restarts."""
        registration = self._registration
        known = await asyncio.to_thread(_read_text, registration.arn_file)
        attributes = await asyncio.to_thread(registration.read_attributes)
        storage_gib = await asyncio.to_thread(_read_storage, registration)
        request: dict[str, Any] = {
            "totalResources": [
                {"name": "CPU", "type": "INTEGER", "integerValue": registration.cpu_units},
                {"name": "MEMORY", "type": "INTEGER", "integerValue": registration.memory_mib},
                *_render_storage(storage_gib),
                {
                    "name": CLUSTERS,
                    "type": "STRINGSET",
                    "stringSetValue": list(registration.clusters) or [EVERY_CLUSTER],
                },
            ],
            "attributes": [each.render() for each in attributes],
            "versionInfo": {"agentVersion": __version__, "dockerVersion": "containerd"},
        }
        if registration.clusters:
            request["cluster"] = registration.clusters[0]
        if known:
            request["containerInstanceArn"] = known
        try:
            answer = await self._control_plane.call("RegisterContainerInstance", request)
        except ControlPlaneError as error:
            if error.code == ACCESS_DENIED and not registration.clusters:
                log.warning(ADVICE)
            raise
        self._attributes = attributes
        arn = str(answer["containerInstance"]["containerInstanceArn"])
        if arn != known:
            await asyncio.to_thread(_write_text, registration.arn_file, arn)
        return arn


def _cluster_of(instance_arn: str) -> str:
    """Return the name of the cluster in which an agent is registered."""
    return instance_arn.split("/")[-2]


def _parse(text: str) -> Frame | None:
    try:
        frame = parse_frame(text)
    except ValueError as error:
        log.error("a frame of the control plane can't be read: %s", error)
        return None
    if frame is None:
        log.warning("a frame of an unknown type is ignored")
    return frame


def _read_storage(registration: Registration) -> int | None:
    try:
        return registration.read_storage_gib()
    except OSError as error:  # the next connection asks again
        log.warning("the disk can't be asked for its room: %s", error.strerror)
        return None


def _render_storage(storage_gib: int | None) -> list[dict[str, Any]]:
    if storage_gib is None:
        return []
    return [{"name": _STORAGE, "type": "INTEGER", "integerValue": storage_gib}]


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text, mode=0o644, durable=False)
