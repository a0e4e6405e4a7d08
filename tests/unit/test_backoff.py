from itertools import islice

from fargate_agent.backoff import Backoff


def test_pauses_grow_to_the_longest_and_vary_by_the_jitter() -> None:
    pauses_s = Backoff(first_s=1.1, longest_s=5.0).pauses_s()

    for pause_s, least_s in zip(islice(pauses_s, 4), (1.1, 2.2, 4.4, 5.0), strict=True):
        assert least_s <= pause_s <= least_s * 1.2


def test_pauses_never_end() -> None:
    pauses_s = Backoff(first_s=1, longest_s=3, jitter=0).pauses_s()

    assert list(islice(pauses_s, 10_000))[-1] == 3


def test_first_pause_is_no_longer_than_the_longest() -> None:
    assert next(Backoff(first_s=60, longest_s=5, jitter=0).pauses_s()) == 5
