"""Services: so many tasks, kept running, and replaced by others without a gap.

`editing` writes down what should be, `planning` decides what is to be done for that, `scheduler`
does it.
"""

from typing import Final

from fargate_agent.controlplane.plane import Operation
from fargate_agent.controlplane.services import editing, queries, rollouts

OPERATIONS: Final[dict[str, Operation]] = (
    editing.OPERATIONS | queries.OPERATIONS | rollouts.OPERATIONS
)
