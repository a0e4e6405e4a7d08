"""What is counted of each ENI in one interval, and its lines in AWS's version 2 format. Pure.

Source: Amazon VPC User Guide, "Flow log records".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

VERSION: Final = 2
ACCEPT, REJECT = "ACCEPT", "REJECT"
MAX_FLOWS: Final = 4096
"""Of one ENI and action in one interval; of further ones the record says SKIPDATA."""


class Flow(NamedTuple):
    """One direction of a flow: what a line is about."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    protocol: int


@dataclass(slots=True)
class Totals:
    """How much there was of a flow."""

    packets: int
    bytes: int
    start_s: int
    end_s: int
    """Seconds since 1970."""

    def add(self, packets: int, size_bytes: int, at_s: int) -> None:
        """Count more of it."""
        self.packets += packets
        self.bytes += size_bytes
        self.end_s = max(self.end_s, at_s)


@dataclass(slots=True)
class EniWindow:
    """What one ENI had in an interval."""

    account: str
    flows: dict[str, dict[Flow, Totals]] = field(default_factory=lambda: {ACCEPT: {}, REJECT: {}})
    """By action."""
    is_incomplete: bool = False

    def count(
        self, action: str, flow: Flow, packets: int, size_bytes: int, start_s: int, end_s: int
    ) -> None:
        """Count packets of a flow. Without packets there is nothing to count."""
        if not packets:
            return
        of_action = self.flows[action]
        known = of_action.get(flow)
        if known is not None:
            known.add(packets, size_bytes, end_s)
        elif len(of_action) < MAX_FLOWS:
            of_action[flow] = Totals(packets, size_bytes, start_s, end_s)
        else:
            self.is_incomplete = True

    def render(self, eni_id: str, start_s: int, end_s: int) -> Iterator[str]:
        """Yield the lines of the interval."""
        head = f"{VERSION} {self.account} {eni_id}"
        for action, flows in self.flows.items():
            for flow, totals in flows.items():
                yield (
                    f"{head} {flow.source} {flow.destination} {flow.source_port} "
                    f"{flow.destination_port} {flow.protocol} {totals.packets} {totals.bytes} "
                    f"{totals.start_s} {totals.end_s} {action} OK"
                )
        nothing = f"{head} - - - - - - - {start_s} {end_s} -"
        if self.is_incomplete:
            yield f"{nothing} SKIPDATA"
        elif not any(self.flows.values()):
            yield f"{nothing} NODATA"


class Window:
    """What all ENIs had since an interval began."""

    def __init__(self, start_s: int) -> None:
        self.start_s: Final = start_s
        self._enis: dict[str, EniWindow] = {}

    def eni(self, eni_id: str, account: str) -> EniWindow:
        """Return what is counted of an ENI."""
        found = self._enis.get(eni_id)
        if found is None:
            found = self._enis[eni_id] = EniWindow(account)
        return found

    def skip(self) -> None:
        """Something of unknown ENIs was lost."""
        for one in self._enis.values():
            one.is_incomplete = True

    def render(self, end_s: int) -> dict[str, list[str]]:
        """Return the lines of each ENI."""
        return {
            eni_id: list(one.render(eni_id, self.start_s, end_s))
            for eni_id, one in self._enis.items()
        }
