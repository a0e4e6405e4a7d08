"""What is told of a task: a plain sentence, what to do about it, and which log says more."""

from dataclasses import dataclass
from typing import Final

TASK_LOG: Final = "Its log says more: fargate logs {task}"
AGENT_LOG: Final = "Its log says more: {agent_log}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task is as it is."""

    what: str
    advice: str = ""
    """Empty: there is nothing to do."""
    log: str = ""
    """Where more is said, if there is such a log."""
