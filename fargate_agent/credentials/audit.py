"""Who has asked for credentials: one line for each request, in the log of this name.

Source: amazon-ecs-agent, ecs-agent/logger/audit: which fields a line has.
"""

import json
import logging
from enum import StrEnum
from pathlib import Path
from typing import Final

from fargate_agent.plan import RolePlan, TaskPlan

log = logging.getLogger("fargate_agent.audit")

MAX_AGENT_CHARS: Final = 200
"""Of what a client says of itself."""
NONE: Final = "-"


class Asked(StrEnum):
    """What was asked for. Source: amazon-ecs-agent, ecs-agent/logger/audit/request/request.go."""

    TASK_ROLE = "GetCredentials"
    EXECUTION_ROLE = "GetCredentialsExecutionRole"


class Audit:
    """Writes down requests for credentials; never an id or a key."""

    def __init__(self, instance_arn_file: Path) -> None:
        """`instance_arn_file` holds the ARN of this container instance, once it has one."""
        self._file = instance_arn_file
        self._instance_arn = ""

    def note(
        self,
        asked: Asked,
        status: int,
        where: str,
        user_agent: str,
        task: TaskPlan | None,
        role: RolePlan | None,
    ) -> None:
        """Write one line: status, place, client, role, task, what, cluster, instance.

        `where` is the place that was asked, without the id that may have stood there. Everything
        that isn't known is `-`.
        """
        log.info(
            '%d "%s" %s %s %s %s %s %s',
            status,
            where,
            json.dumps(user_agent[:MAX_AGENT_CHARS] or NONE),
            role.arn if role else NONE,
            task.arn if task else NONE,
            asked,
            task.cluster if task else NONE,
            self._find_instance_arn(),
            extra={"task": task.id} if task else None,
        )

    def _find_instance_arn(self) -> str:
        if not self._instance_arn:
            try:
                self._instance_arn = self._file.read_text().strip()
            except OSError:
                return NONE
        return self._instance_arn or NONE
