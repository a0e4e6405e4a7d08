"""What is asked of the drivers in the life of a task: a diary for each scenario."""

from typing import Final

from tests.diaries.lives import LIVES
from tests.diaries.new_tasks import NEW_TASKS
from tests.diaries.scenario import Scenario

SCENARIOS: Final[dict[str, Scenario]] = {**NEW_TASKS, **LIVES}
