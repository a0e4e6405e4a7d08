"""Numbers as the text that Prometheus reads.

`prometheus_client` writes it: 16 ms and 1.3 MiB of import, which is paid by who is asked for it.
What counts on all the time is `histogram.Histogram` and plain numbers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fargate_agent.measures.histogram import Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Source: Prometheus, "Exposition formats"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric, with a value for each combination of its labels that there is."""

    name: str
    """A counter's without `_total`."""
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    values: dict[tuple[str, ...], float | Histogram] = field(default_factory=dict)
    """By the values of the labels."""


def render(families: Iterable[Family]) -> bytes:
    """Return the text. Imports at the first call, so call it in a thread."""
    from prometheus_client.exposition import generate_latest

    return bytes(generate_latest(_Collected(list(families))))


class _Collected:
    """What `prometheus_client` takes for a registry."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        from prometheus_client import core

        kinds = {
            "counter": core.CounterMetricFamily,
            "gauge": core.GaugeMetricFamily,
            "histogram": core.HistogramMetricFamily,
        }
        for family in self._families:
            made = kinds[family.kind](family.name, family.help, labels=family.labels)
            for labels, value in family.values.items():
                if isinstance(value, Histogram):
                    made.add_metric(labels, buckets=value.cumulate(), sum_value=value.sum)
                else:
                    made.add_metric(labels, value)
            yield made
