"""The health of a container: a program that is run inside it again and again.

Source: Docker's reference, `HEALTHCHECK`, and moby, daemon/health.go, for when a check is due and
what counts; ECS API, HealthCheck.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fargate_agent.drivers import ExecIo, Runtime
from fargate_agent.errors import CannotExecError, ExecTimeoutError, TaskError
from fargate_agent.plan import ContainerPlan, HealthCheckPlan
from fargate_agent.task.status import HealthFacts, HealthStatus

log = logging.getLogger(__name__)

EXEC_ID: Final = "health"

MAX_OUTPUT_CHARS: Final = 1024
"""Source: amazon-ecs-agent, agent/dockerclient/dockerapi, `maxHealthCheckOutputLength`."""
_MAX_OUTPUT_BYTES: Final = 4 * MAX_OUTPUT_CHARS
"""A character has at most four."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check has found."""

    exit_code: int | None
    """None if it had none: it could not be started, or took too long."""
    output: str


def record_check(
    facts: HealthFacts,
    check: HealthCheckPlan,
    result: CheckResult,
    *,
    ran_s: float,
    at: datetime,
) -> bool:
    """Note what a check has found, that began `ran_s` after the start of the container.

    Return whether the next agent has to know of it. Failures beyond those that make a container
    UNHEALTHY change nothing.
    """
    before = (facts.status, min(facts.failing_streak, check.retries))
    facts.exit_code, facts.output = result.exit_code, result.output
    if result.exit_code == 0:
        facts.failing_streak = 0
        status = HealthStatus.HEALTHY
    else:
        is_starting = not facts.start_period_is_over and ran_s < check.start_period_s
        facts.failing_streak = 0 if is_starting else facts.failing_streak + 1
        is_over = facts.failing_streak >= check.retries
        status = HealthStatus.UNHEALTHY if is_over else facts.status
    facts.start_period_is_over = facts.start_period_is_over or result.exit_code == 0
    if status is not facts.status:
        facts.status, facts.since = status, at
    return before != (facts.status, min(facts.failing_streak, check.retries))


async def check_health(
    container: ContainerPlan,
    check: HealthCheckPlan,
    facts: HealthFacts,
    runtime: Runtime,
    started_s: float,
    save: Callable[[bool], Awaitable[None]],
) -> None:
    """Check a container that runs, until cancelled.

    `started_s` is when it was started, by the clock of the event loop. `save` is called when
    something has changed; it is told whether that is the status.
    """
    clock = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(check.interval_s)
        ran_s, status = clock.time() - started_s, facts.status
        try:
            result = await _check(container, check, runtime)
        except TaskError as error:
            log.debug("container %s: no health check: %s", container.name, error.detail)
            continue
        if record_check(facts, check, result, ran_s=ran_s, at=datetime.now(UTC)):
            if facts.status is not status:
                level = logging.WARNING if facts.status is HealthStatus.UNHEALTHY else logging.INFO
                log.log(level, "container %s is %s", container.name, facts.status)
            await save(facts.status is not status)


async def _check(container: ContainerPlan, check: HealthCheckPlan, runtime: Runtime) -> CheckResult:
    """Run the check once.

    Raises:
        TaskError: it says nothing about the container.
    """
    written = bytearray()

    def keep_end(part: bytes) -> None:
        written.extend(part)
        del written[:-_MAX_OUTPUT_BYTES]

    io = ExecIo(on_output=keep_end, on_error=keep_end)
    try:
        code = await runtime.exec(container, EXEC_ID, check.argv, io, check.timeout_s)
    except ExecTimeoutError:
        text = f"Health check exceeded timeout ({check.timeout_s}s)"
        return CheckResult(exit_code=None, output=text)
    except CannotExecError as error:
        return CheckResult(exit_code=None, output=error.detail[:MAX_OUTPUT_CHARS])
    output = written.decode(errors="replace")[-MAX_OUTPUT_CHARS:]
    return CheckResult(exit_code=code, output=output)
