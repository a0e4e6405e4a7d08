"""A trace of each task's start, sent to a collector by OTLP over HTTP.

OpenTelemetry's own library makes and sends them, in a thread of its own, and is loaded only where a
collector is set: it takes some 20 MiB. It is the extra `otel` of the package. A task never waits:
spans that find the queue full are dropped, a collector that is away is a line in the log. What the
library reads of the environment counts, e.g. `OTEL_EXPORTER_OTLP_HEADERS` for a collector's key.
"""

import asyncio
import logging
from typing import Any, Final

from fargate_agent import __version__
from fargate_agent.task.phases import Phase
from fargate_agent.task.runner import TaskRun

log = logging.getLogger(__name__)

PATH: Final = "/v1/traces"
"""Source: OpenTelemetry, "OTLP/HTTP"."""
QUEUE_SPANS: Final = 2048
SEND_EVERY_MS: Final = 2000
SEND_TIMEOUT_S: Final = 5
CLOSE_TIMEOUT_S: Final = 6
"""How long the end of the agent waits for what is still to be sent."""

_NS_PER_S: Final = 1_000_000_000
_SUBJECTS: Final = {
    "pull": "container.image.name",
    "create": "aws.ecs.container.name",
    "start": "aws.ecs.container.name",
}
"""What the subject of a phase is, by its name."""


class Traces:
    """Sends traces to one collector. Made in a thread, for it loads the library."""

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._provider = TracerProvider(
            resource=Resource.create(
                {"service.name": "fargate-agent", "service.version": __version__}
            ),
            shutdown_on_exit=False,
        )
        self._exporter = OTLPSpanExporter(endpoint.rstrip("/") + PATH, timeout=SEND_TIMEOUT_S)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=QUEUE_SPANS,
                schedule_delay_millis=SEND_EVERY_MS,
                export_timeout_millis=SEND_TIMEOUT_S * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("fargate-agent", __version__)

    def note_start(self, run: TaskRun, phases: tuple[Phase, ...]) -> None:
        """Have a start sent: a span for all of it, and one below it for each part."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import set_span_in_context

        total, *parts = phases
        plan = run.plan
        parent = None if plan.traceparent is None else extract({"traceparent": plan.traceparent})
        attributes = {
            "aws.ecs.task.arn": plan.arn,
            "aws.ecs.task.id": plan.id,
            "aws.ecs.task.family": plan.family,
            "aws.ecs.task.revision": plan.revision,
            "aws.ecs.cluster.arn": plan.cluster_arn,
            "aws.ecs.launchtype": plan.launch_type.lower(),
        }
        root = self._begin("start task", total, parent, attributes)
        below = set_span_in_context(root)
        for part in parts:
            subject = {_SUBJECTS.get(part.name, "fargate.subject"): part.subject}
            _end(self._begin(part.name, part, below, {**attributes, **subject}), part)
        _end(root, total)

    async def close(self) -> None:
        """Send what is left, for a moment, and let go."""
        end = asyncio.create_task(asyncio.to_thread(self._provider.shutdown))
        await asyncio.wait([end], timeout=CLOSE_TIMEOUT_S)
        if not end.done():
            log.warning("the last traces are lost: the collector doesn't take them")
            # else it tries on, and the agent's end waits for its thread
            self._exporter.shutdown()  # type: ignore[no-untyped-call]
            await asyncio.wait([end], timeout=SEND_TIMEOUT_S)

    def _begin(
        self,
        name: str,
        phase: Phase,
        parent: Any,  # noqa: ANN401 - of the extra
        attributes: dict[str, str],
    ) -> Any:  # noqa: ANN401
        return self._tracer.start_span(
            name,
            context=parent,
            start_time=round(phase.began_s * _NS_PER_S),
            attributes=attributes,
        )


def _end(span: Any, phase: Phase) -> None:  # noqa: ANN401 - of the extra
    from opentelemetry.trace import StatusCode

    if phase.failed:
        span.set_status(StatusCode.ERROR)
    span.end(round((phase.began_s + phase.took_s) * _NS_PER_S))
