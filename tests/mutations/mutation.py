"""One change of the agent, and the names of what is changed and of what sees it."""

from dataclasses import dataclass
from typing import Final

RUNNER: Final = "fargate_agent/task/runner.py"
STEPS: Final = "fargate_agent/task/steps.py"
LIFE_OF_ONE: Final = "fargate_agent/task/life.py"
ORDER: Final = "fargate_agent/plan/order.py"
CONDITIONS: Final = "fargate_agent/task/conditions.py"
ENDS: Final = "fargate_agent/task/ends.py"
HEALTH: Final = "fargate_agent/task/health.py"
FACTS: Final = "fargate_agent/task/status.py"
SURROUNDINGS: Final = "fargate_agent/task/surroundings.py"
PULLS: Final = "fargate_agent/task/pulls.py"
SUPERVISOR: Final = "fargate_agent/task/supervisor.py"
STORE: Final = "fargate_agent/task/store.py"
REPORTER: Final = "fargate_agent/acs/reporter.py"

DIARIES: Final = "tests/unit/test_runner_diaries.py"
DEATHS: Final = "tests/unit/test_runner_deaths.py"
DEADLINES: Final = "tests/unit/test_runner_deadlines.py"
LIFE: Final = "tests/unit/test_runner.py"
LOST_LOGGER: Final = "tests/unit/test_lost_logger.py"
GRACE: Final = "tests/unit/test_stop_grace.py"
SUPERVISION: Final = "tests/unit/test_supervisor.py"
DEPENDENCIES: Final = "tests/unit/test_dependencies.py"
FAILURES: Final = "tests/unit/test_container_failures.py"
CHECKS: Final = "tests/unit/test_container_health.py"
RESTARTS: Final = "tests/unit/test_container_restarts.py"
STOPS: Final = "tests/unit/test_stop_order.py"
ORDERS: Final = "tests/unit/test_plan_order.py"
KNOWN: Final = "tests/unit/test_task_facts.py"
ADOPTION: Final = "tests/unit/test_supervisor_adoption.py"
REPORTS: Final = "tests/unit/test_reporter.py"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one file."""

    name: str
    file: str
    before: str
    """Stands once in the file."""
    after: str
    tests: tuple[str, ...]

    def apply(self, text: str) -> str:
        """Return the text with the change.

        Raises:
            ValueError: the text doesn't have what is to be changed, or more than once.
        """
        if text.count(self.before) != 1:
            raise ValueError(f"{self.name}: {self.file} has {text.count(self.before)} such places")
        return text.replace(self.before, self.after)
