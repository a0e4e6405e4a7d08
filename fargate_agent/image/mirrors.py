"""Which registries are asked for an image: those that stand for its own, and its own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fargate_agent.image.reference import Reference, parse_reference, registry_key
from fargate_agent.setting_values import NO_ORIGINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A name by which an image may be pulled."""

    reference: Reference
    is_mirror: bool
    """Whether it is another than the task's."""


class Mirrors:
    """The setting `registry_mirrors`."""

    def __init__(self, table: Mapping[str, Sequence[str]]) -> None:
        """Take prefixes of names, `HOST[:PORT][/PATH]`, with what stands for each of them."""
        self._table = {_split(prefix): tuple(mirrors) for prefix, mirrors in table.items()}

    def candidates(self, reference: Reference) -> tuple[Candidate, ...]:
        """Return the names to try, in order; at least one.

        The longest prefix counts, at a boundary of the path, and no shorter one beside it. The
        image's own name comes last, unless the list has it in another place or forbids it. Tag and
        digest stay.

        Raises:
            InvalidReferenceError: a mirror makes a name that can't be: it is too long.
        """
        own = Candidate(reference=reference, is_mirror=False)
        prefix = self._find(reference)
        if prefix is None:
            return (own,)
        rest = _parts(reference)[len(prefix) :]
        found = list(self._replace(reference, self._table[prefix], rest))
        if own not in found and NO_ORIGINAL not in self._table[prefix]:
            found.append(own)
        return tuple(dict.fromkeys(found))

    def _find(self, reference: Reference) -> tuple[str, ...] | None:
        parts = _parts(reference)
        lengths = range(len(parts), 0, -1)
        return next((parts[:length] for length in lengths if parts[:length] in self._table), None)

    def _replace(
        self, reference: Reference, mirrors: Sequence[str], rest: Sequence[str]
    ) -> Iterator[Candidate]:
        selector = reference.name.removeprefix(f"{reference.registry}/{reference.repository}")
        for mirror in mirrors:
            if mirror != NO_ORIGINAL:
                name = parse_reference("/".join((mirror, *rest)) + selector)
                yield Candidate(reference=name, is_mirror=name != reference)


def find_prefix(reference: Reference, prefixes: Iterable[str]) -> str | None:
    """Return the longest prefix that an image has, at a boundary of its path; "" is one of all.

    A registry counts by whichever of its names; of two prefixes that are the same but for that, the
    one that is written as in the image.
    """
    parts, host = _parts(reference), reference.registry.lower()
    fitting = []
    for prefix in prefixes:
        split = _split(prefix) if prefix else ()
        if parts[: len(split)] == split:
            fitting.append((len(split), prefix.partition("/")[0].lower() == host, prefix))
    return max(fitting)[2] if fitting else None


def _parts(reference: Reference) -> tuple[str, ...]:
    return (registry_key(reference.registry), *reference.repository.split("/"))


def _split(prefix: str) -> tuple[str, ...]:
    host, *path = prefix.split("/")
    return (registry_key(host), *path)
