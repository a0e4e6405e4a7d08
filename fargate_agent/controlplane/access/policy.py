"""Policies in IAM's JSON: whether a principal may do something to a resource.

An explicit deny wins, then an allow counts, else the answer is no. What a policy says and this
module can't evaluate is refused when the policy is read: a condition that is passed over in silence
would allow more than was meant.

Source: AWS IAM user guide, "IAM JSON policy elements reference", "Policy evaluation logic".
"""

import enum
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

Context = Mapping[str, str]
"""Values of condition keys, by their names in lower case; a key without a value is left out."""

ANY_REVISION: Final = ":*"
"""Ends the ARN of a task definition whose revision the request leaves open."""

ANY_CLUSTER: Final = ":cluster/*"
"""Ends the ARN that stands for all clusters, those included that are made later."""

CONDITION_KEYS: Final = (
    "ecs:cluster",
    "ecs:service",
    "ecs:container-instances",
    "aws:username",
    "iam:PassedToService",
)
"""The last one has a value for `iam:PassRole` alone."""

_VERSIONS: Final = ("2012-10-17", "2008-10-17")
_ACTION: Final = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_ARN_PARTS: Final = 6
_STATEMENT_MEMBERS: Final = frozenset(
    {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)


class Decision(enum.Enum):
    """What a policy says to a request."""

    ALLOWED = "allowed"
    NOT_ALLOWED = "no statement allows it"
    DENIED = "a statement denies it"


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of one operator; its values are alternatives."""

    operator: str
    """Without `IfExists`."""
    if_exists: bool
    key: str
    """In lower case."""
    values: tuple[str, ...]

    def holds(self, context: Context) -> bool:
        """Whether it is so; a key without a value satisfies only what is negative or `IfExists`."""
        value = context.get(self.key)
        if self.operator == "Null":
            return ("true" if value is None else "false") in self.values
        negative, matches = _OPERATORS[self.operator]
        if value is None:
            return self.if_exists or negative
        return any(matches(pattern, value) for pattern in self.values) != negative


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of a policy."""

    allows: bool
    actions: tuple[str, ...]
    other_actions: bool
    """`NotAction`: every action but these."""
    resources: tuple[str, ...]
    other_resources: bool
    conditions: tuple[Condition, ...]

    def applies(self, action: str, resource: str, context: Context) -> bool:
        """Whether it speaks of this action on this resource under these conditions."""
        named = any(_glob(pattern.lower(), action.lower()) for pattern in self.actions)
        return (
            named != self.other_actions
            and self._concerns(resource)
            and all(condition.holds(context) for condition in self.conditions)
        )

    def _concerns(self, resource: str) -> bool:
        # Of an open revision, and of every cluster, an allow must hold whatever is meant in the
        # end, and a deny if it may be meant.
        cautious = _covers if self.allows != self.other_resources else _touches
        found = any(cautious(pattern, resource) for pattern in self.resources)
        return found != self.other_resources


@dataclass(frozen=True, slots=True)
class Policy:
    """What a principal may do."""

    statements: tuple[Statement, ...]

    def decide(self, action: str, resource: str, context: Context) -> Decision:
        """Say whether `action`, e.g. `ecs:RunTask`, may be done to the resource with this ARN.

        `*` is the resource of an action that is about none in particular.
        """
        applying = [s for s in self.statements if s.applies(action, resource, context)]
        if any(not statement.allows for statement in applying):
            return Decision.DENIED
        return Decision.ALLOWED if applying else Decision.NOT_ALLOWED


def parse_policy(text: str) -> Policy:
    """Read a policy.

    Raises:
        ValueError: it is not one, or says what can't be evaluated; the text names the statement.

    Example:
        >>> read_only = parse_policy(
        ...     '{"Statement": {"Effect": "Allow", "Action": "ecs:List*", "Resource": "*"}}'
        ... )
        >>> read_only.decide("ecs:ListClusters", "*", {})
        <Decision.ALLOWED: 'allowed'>
    """
    try:
        document = json.loads(text, object_pairs_hook=_refuse_twice)
    except RecursionError:
        raise ValueError("not JSON: too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("must be a JSON object")
    _refuse_unknown(document, {"Version", "Id", "Statement"}, "the policy")
    if document.get("Version", _VERSIONS[1]) not in _VERSIONS:
        raise ValueError(f"Version must be one of: {', '.join(_VERSIONS)}")
    statements = document.get("Statement")
    several = statements if isinstance(statements, list) else [statements]
    return Policy(
        tuple(_parse_statement(found, f"Statement[{i}]") for i, found in enumerate(several))
    )


def _parse_statement(found: Any, where: str) -> Statement:  # noqa: ANN401 - any JSON
    if not isinstance(found, dict):
        raise ValueError(f"{where} must be an object")
    if isinstance(found.get("Sid"), str):
        where = f"{where} ({found['Sid'][:64]})"
    _refuse_unknown(found, _STATEMENT_MEMBERS, where)
    if found.get("Effect") not in {"Allow", "Deny"}:
        raise ValueError(f"{where}: Effect must be Allow or Deny")
    actions, other_actions = _parse_choice(found, "Action", where)
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise ValueError(f"{where}: '{action[:64]}' is no action such as ecs:RunTask")
    resources, other_resources = _parse_choice(found, "Resource", where)
    for resource in resources:
        _check_arn(resource, where)
    return Statement(
        allows=found["Effect"] == "Allow",
        actions=actions,
        other_actions=other_actions,
        resources=resources,
        other_resources=other_resources,
        conditions=tuple(_parse_conditions(found.get("Condition", {}), where)),
    )


def _parse_choice(found: dict[str, Any], member: str, where: str) -> tuple[tuple[str, ...], bool]:
    """Return what stands in `member` or in `Not…`, and whether it is the latter."""
    given = [name for name in (member, f"Not{member}") if name in found]
    if len(given) != 1:
        raise ValueError(f"{where}: needs {member} or Not{member}, and not both")
    return _parse_strings(found[given[0]], f"{where}: {given[0]}"), given[0] != member


def _parse_conditions(found: Any, where: str) -> Iterable[Condition]:  # noqa: ANN401 - any JSON
    if not isinstance(found, dict):
        raise ValueError(f"{where}: Condition must be an object")
    known = {key.lower() for key in CONDITION_KEYS}
    for written, keys in found.items():
        operator = written.removesuffix("IfExists")
        if operator not in _OPERATORS and written != "Null":
            raise ValueError(f"{where}: condition operator '{written[:64]}' is not supported")
        if not isinstance(keys, dict):
            raise ValueError(f"{where}: {written} must be an object")
        for key, values in keys.items():
            if key.lower() not in known:
                listed = ", ".join(CONDITION_KEYS)
                raise ValueError(
                    f"{where}: condition key '{key[:64]}' is not supported; there are: {listed}"
                )
            place = f"{where}: {written} {key}"
            yield Condition(
                operator, operator != written, key.lower(), _parse_values(operator, values, place)
            )


def _parse_values(operator: str, found: Any, where: str) -> tuple[str, ...]:  # noqa: ANN401 - any JSON
    if operator == "Null":
        found = {True: "true", False: "false"}[found] if isinstance(found, bool) else found
        values = _parse_strings(found, where)
        if not {"true", "false"}.issuperset(values):
            raise ValueError(f"{where} must be true or false")
        return values
    values = _parse_strings(found, where)
    if operator.startswith("Arn"):
        for value in values:
            _check_arn(value, where)
    return values


def _parse_strings(found: Any, where: str) -> tuple[str, ...]:  # noqa: ANN401 - any JSON
    several = found if isinstance(found, list) else [found]
    if not several or not all(isinstance(value, str) for value in several):
        raise ValueError(f"{where} must be a string or a list of strings")
    if any("${" in value for value in several):
        raise ValueError(f"{where}: policy variables (${{…}}) are not supported")
    return tuple(several)


def _check_arn(pattern: str, where: str) -> None:
    if pattern != "*" and (
        not pattern.startswith("arn:") or len(_split_arn(pattern)) != _ARN_PARTS
    ):
        raise ValueError(f"{where}: '{pattern[:128]}' is no ARN, and not *")


def _refuse_unknown(found: dict[str, Any], known: Iterable[str], where: str) -> None:
    if unknown := sorted(found.keys() - set(known)):
        raise ValueError(f"{where}: unknown element '{unknown[0][:64]}'")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an element is there twice")
    return found


def _covers(pattern: str, resource: str) -> bool:
    """Whether the pattern means the resource, whatever it turns out to be."""
    if not resource.endswith((ANY_REVISION, ANY_CLUSTER)):
        return _matches_arn(pattern, resource)
    # a `?` in the pattern would take the one `*` for a revision or a name
    return _matches_arn(pattern, resource) and _matches_arn(pattern, f"{resource}*")


def _touches(pattern: str, resource: str) -> bool:
    """Whether the pattern may mean the resource."""
    if _matches_arn(pattern, resource):
        return True
    if resource.endswith(ANY_CLUSTER):
        return _touches_cluster(pattern, resource)
    if not resource.endswith(ANY_REVISION):
        return False
    end = ":" if ":" in _split_arn(pattern)[-1] else "*"
    stem, _, _ = pattern.rpartition(end)
    return _matches_arn(f"{stem}{ANY_REVISION if end == ':' else '*'}", resource)


def _touches_cluster(pattern: str, every: str) -> bool:
    """Whether the pattern may mean a cluster: what is literal in it is no other resource."""
    *place, name = _split_arn(pattern)
    *here, kind = _split_arn(every.removesuffix("*"))
    literal = re.split(r"[*?]", name, maxsplit=1)[0]
    return all(map(_glob, place, here)) and (literal.startswith(kind) or kind.startswith(literal))


def _matches_arn(pattern: str, arn: str) -> bool:
    """Compare part by part: a wildcard doesn't reach across the first five colons."""
    if pattern == "*":
        return True
    patterns, parts = _split_arn(pattern), _split_arn(arn)
    return len(patterns) == len(parts) and all(map(_glob, patterns, parts))


def _split_arn(arn: str) -> list[str]:
    return arn.split(":", _ARN_PARTS - 1)


def _equals(pattern: str, value: str) -> bool:
    return pattern == value


def _glob(pattern: str, value: str) -> bool:
    return _compile(pattern).fullmatch(value) is not None


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    """Patterns come from policies, so there are few of them."""
    wild = {"*": ".*", "?": "."}
    single = re.sub(r"\*+", "*", pattern)
    return re.compile("".join(wild.get(char) or re.escape(char) for char in single), re.DOTALL)


_OPERATORS: Final[dict[str, tuple[bool, Callable[[str, str], bool]]]] = {
    "StringEquals": (False, _equals),
    "StringNotEquals": (True, _equals),
    "StringLike": (False, _glob),
    "StringNotLike": (True, _glob),
    # both forms take wildcards. Source: IAM user guide, "ARN condition operators"
    "ArnEquals": (False, _matches_arn),
    "ArnLike": (False, _matches_arn),
    "ArnNotEquals": (True, _matches_arn),
    "ArnNotLike": (True, _matches_arn),
}
"""Whether it is negative, and how it compares a pattern with a value."""
