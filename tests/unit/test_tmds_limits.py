import tracemalloc

import pytest

from fargate_agent.tmds.limits import MAX_BUCKETS, Limiter, Rate, parse_rate


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def take(limiter: Limiter, times: int, name: str = "/v4/x") -> int:
    return sum(limiter.take(name) for _ in range(times))


def test_burst_is_given_at_once_and_the_rate_after_that() -> None:
    clock = Clock()
    limiter = Limiter(Rate(40, 60), clock)

    first = take(limiter, 100)
    clock.now_s += 0.5
    second = take(limiter, 100)
    clock.now_s += 3600
    third = take(limiter, 100)

    assert (first, second, third) == (60, 20, 60)


def test_refused_requests_cost_nothing() -> None:
    clock = Clock()
    limiter = Limiter(Rate(0.2, 1), clock)

    assert [take(limiter, 1), take(limiter, 1000)] == [1, 0]
    clock.now_s += 5
    assert take(limiter, 1) == 1


def test_each_name_has_a_bucket_of_its_own() -> None:
    limiter = Limiter(Rate(40, 60), Clock())

    assert [take(limiter, 61, name) for name in ("/a", "/b")] == [60, 60]


def test_buckets_are_as_many_as_there_may_be_whatever_is_asked() -> None:
    clock = Clock()
    limiter = Limiter(Rate(40, 60), clock)

    for number in range(10 * MAX_BUCKETS):
        assert limiter.take(f"/{number}")

    assert len(limiter) <= MAX_BUCKETS
    assert take(limiter, 60, f"/{10 * MAX_BUCKETS - 1}") == 59  # the last one is still known


def test_names_of_any_length_take_no_memory() -> None:
    limiter = Limiter(Rate(40, 60), Clock())

    tracemalloc.start()
    try:
        for number in range(MAX_BUCKETS):
            limiter.take(f"/{number}/" + "x" * 8000)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept_bytes < MAX_BUCKETS * 1000


def test_full_buckets_are_forgotten_before_others() -> None:
    clock = Clock()
    limiter = Limiter(Rate(40, 60), clock)
    for number in range(MAX_BUCKETS - 1):
        limiter.take(f"/{number}")
    clock.now_s += 1
    take(limiter, 60, "/empty")

    limiter.take("/one more")

    assert len(limiter) == 2
    assert take(limiter, 1, "/empty") == 0


@pytest.mark.parametrize(
    ("text", "rate"), [("40,60", Rate(40, 60)), ("1,1", Rate(1, 1)), ("0", None)]
)
def test_setting_is_a_rate_and_a_burst_or_no_limit(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate
