"""How often a task may ask for the same path: token buckets, in bounded memory.

Source: amazon-ecs-agent, README, `ECS_TASK_METADATA_RPS_LIMIT`; ecs-agent/tmds/server.go.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_BUCKETS: Final = 1024
"""Of one task. Who asks for more paths than that within two seconds gets some of them new."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a bucket fills, and how much is in a full one."""

    per_second: float
    burst: int


FAULTS: Final = Rate(0.2, 1)
"""Source: amazon-ecs-agent, ecs-agent/tmds/handlers/fault."""


def parse_rate(text: str) -> Rate | None:
    """Read `RATE,BURST`, as `ECS_TASK_METADATA_RPS_LIMIT` has it; None: `0`, no limit."""
    if text == "0":
        return None
    per_second, _, burst = text.partition(",")
    return Rate(int(per_second), int(burst))


class Limiter:
    """Buckets of one rate, each with a name.

    Of a bucket only the moment is kept at which it is full again.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = 1 / rate.per_second
        self._depth_s = rate.burst / rate.per_second
        self._clock = clock
        self._full_at: dict[int, float] = {}
        """By the hashes of names, which are as long as who asks likes."""

    def take(self, name: str) -> bool:
        """Take one from a bucket; False if it is empty."""
        now, key = self._clock(), hash(name)
        full_at = max(self._full_at.get(key, now), now) + self._interval_s
        if full_at - now > self._depth_s + 1e-9:
            return False
        if key not in self._full_at and len(self._full_at) >= MAX_BUCKETS:
            self._make_room(now)
        self._full_at[key] = full_at
        return True

    def __len__(self) -> int:
        """How many buckets are known."""
        return len(self._full_at)

    def _make_room(self, now: float) -> None:
        """Forget the buckets that are full, and more if that isn't half of them."""
        kept = [(key, moment) for key, moment in self._full_at.items() if moment > now]
        self._full_at = dict(kept[-MAX_BUCKETS // 2 :])
