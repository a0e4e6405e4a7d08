"""How many queries of tasks are on their way at a time, and how many of one task."""

from collections import Counter
from typing import Final

TOTAL: Final = 512
"""Each may hold a socket to a server."""
MOST: Final = 128
"""Of one task, while others ask little."""
LEAST: Final = 8
"""Of one task, however many others there are."""


class Shares:
    """Divides what there is among the tasks that ask."""

    def __init__(self, total: int = TOTAL) -> None:
        """`total` is how many queries there may be, apart from the least that each task has."""
        self._total = total
        self._of: Counter[str] = Counter()

    def take(self, task_id: str) -> bool:
        """Count one more query of a task; False if it has its share already."""
        asking = len(self._of.keys() | {task_id})
        if self._of[task_id] >= min(MOST, max(LEAST, self._total // asking)):
            return False
        self._of[task_id] += 1
        return True

    def give_back(self, task_id: str) -> None:
        """Count one less."""
        self._of[task_id] -= 1
        if self._of[task_id] <= 0:
            del self._of[task_id]
