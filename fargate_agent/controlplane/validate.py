"""Whether a request has the shape that ECS's own service model gives it.

The model is botocore's; the walk over it is ours, because botocore's validator leaves out enums and
maxima, takes booleans for integers, and quotes values that may be secret.

Texts of refusals are botocore's where it has one; what ECS says itself is unverified.
"""

import json
import sys
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final

from botocore.loaders import Loader
from botocore.model import ServiceModel

from fargate_agent.controlplane.errors import ApiError, invalid_parameter
from fargate_agent.controlplane.known_members import KNOWN_MEMBERS

KnownMembers = Mapping[str, Collection[str]]
"""Members of shapes by the names of these."""
Json = dict[str, Any]
"""A shape of the ECS API, as its model describes it; it has been checked against that."""

TARGET_PREFIX: Final = "AmazonEC2ContainerServiceV20141113"

MAX_CHARS: Final = 255
"""Of a string for which AWS documents no limit; it is that of its names. Unverified."""

_END_OF_TIME: Final = 253_402_300_800
"""Seconds since 1970: the first that Python, and ISO 8601 with four digits, has no year for."""
_INTEGER_BITS: Final = {"integer": 32, "long": 64}
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float, str),
    "list": (list,),
    "structure": (dict,),
    "map": (dict,),
}


@cache
def service_model() -> Any:  # noqa: ANN401 - botocore ships no types
    """Return ECS's service model, and in it the members that are ours.

    Agents say by a code why a task ended; those of ECS leave that to the text of the reason. They
    say how healthy containers are and how often they were restarted; ECS hears that elsewhere, and
    doesn't show how often. They say what stands for something else on their machine.
    """
    model = Loader().load_service_model("ecs", "service-2")
    shapes = model["shapes"]
    shapes["SubmitTaskStateChangeRequest"]["members"] |= {
        "stopCode": {"shape": "TaskStopCode"},
        "replacements": {"shape": "Replacements"},
    }
    shapes["Replacements"] = {"type": "list", "member": {"shape": "Replacement"}}
    shapes["Replacement"] = {
        "type": "structure",
        "members": {name: {"shape": "String"} for name in ("kind", "what", "by")},
        "required": ["kind", "what", "by"],
    }
    shapes["ContainerStateChange"]["members"] |= {
        "healthStatus": {"shape": "HealthStatus"},
        "healthStatusSince": {"shape": "Timestamp"},
        "restartCount": {"shape": "Integer"},
    }
    shapes["Container"]["members"]["restartCount"] = {"shape": "Integer"}
    shapes["Task"]["members"]["replacements"] = {"shape": "Replacements"}
    return ServiceModel(model)


def parse_request(
    operation: str,
    body: bytes,
    model: Any = None,  # noqa: ANN401 - botocore ships no types
    known: KnownMembers = KNOWN_MEMBERS,
) -> Json:
    """Read the body of a request; members that are null are left out, times become seconds.

    `model` has the operation; it is ECS's if none is given. Of a shape that `known` names, only the
    members that stand there are known.

    Raises:
        ApiError: it is not JSON, or a member is unknown, absent or of the wrong kind. The text has
            the path of the member.
    """
    try:
        value = json.loads(body or b"{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _serialization("The request body is not valid JSON.") from None
    shape = (model or service_model()).operation_model(operation).input_shape
    checked: Json = check_shape(value, shape, "", known)
    return checked


def check_shape(
    value: Any,  # noqa: ANN401 - any JSON
    shape: Any,  # noqa: ANN401 - botocore ships no types
    path: str,
    known: KnownMembers = KNOWN_MEMBERS,
) -> Any:  # noqa: ANN401 - what the shape says
    """Return `value` as `shape` wants it.

    Raises:
        ApiError: it is not of that shape.
    """
    kind = shape.type_name
    if not _is_of(value, kind):
        raise _serialization(f"{path or 'The request'} must be of type {kind}.")
    match kind:
        case "structure":
            return _check_structure(value, shape, path, known)
        case "list":
            _check_bounds(len(value), shape, f"The length of {path}")
            return [
                check_shape(item, shape.member, f"{path}[{position}]", known)
                for position, item in enumerate(value)
            ]
        case "map":
            return {
                check_shape(key, shape.key, f"{path} (key)"): check_shape(
                    item, shape.value, f"{path}.{key}", known
                )
                for key, item in value.items()
            }
        case _:
            return _check_scalar(value, shape, path)


def check_length(text: str, what: str, most_chars: int = MAX_CHARS) -> None:
    """Return if a string isn't too long.

    Raises:
        ApiError: it is.
    """
    if len(text) > most_chars:
        raise invalid_parameter(f"{what} can have at most {most_chars} characters.")


def _is_of(value: Any, kind: str) -> bool:  # noqa: ANN401 - any JSON
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _check_structure(value: Json, shape: Any, path: str, judged: KnownMembers) -> Json:  # noqa: ANN401 - botocore ships no types
    given = {name: member for name, member in value.items() if member is not None}
    where = path or "input"
    of_shape = judged.get(shape.name, shape.members)
    known = [name for name in shape.members if name in of_shape]
    for name in given:
        if name not in known:
            raise invalid_parameter(
                f'Unknown parameter in {where}: "{name[:64]}", must be one of: {", ".join(known)}'
            )
    for name in shape.required_members:
        if name not in given:
            raise invalid_parameter(f'Missing required parameter in {where}: "{name}"')
    return {
        name: check_shape(member, shape.members[name], f"{path}.{name}".lstrip("."), judged)
        for name, member in given.items()
    }


def _check_scalar(value: Any, shape: Any, path: str) -> Any:  # noqa: ANN401 - any JSON, any shape
    kind = shape.type_name
    if kind == "timestamp":
        return _parse_timestamp(value, path)
    if kind == "string":
        return _check_string(value, shape, path)
    if bits := _INTEGER_BITS.get(kind):
        if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise _serialization(f"{path} does not fit into a {kind}.")
        _check_bounds(value, shape, path)
    if kind in {"float", "double"} and abs(value) > sys.float_info.max:
        raise _serialization(f"{path} does not fit into a {kind}.")
    return value


def _check_string(value: str, shape: Any, path: str) -> str:  # noqa: ANN401 - botocore ships no types
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise _serialization(f"{path} holds a character that can't be in a string.")
    _check_bounds(len(value), shape, f"The length of {path}")
    if shape.enum and value not in shape.enum:
        raise invalid_parameter(f"{path} must be one of: {', '.join(shape.enum)}")
    return value


def _check_bounds(amount: int, shape: Any, what: str) -> None:  # noqa: ANN401 - botocore ships no types
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and amount < low:
        raise invalid_parameter(f"{what} must be at least {low}.")
    if high is not None and amount > high:
        raise invalid_parameter(f"{what} must be at most {high}.")


def _parse_timestamp(value: float | str, path: str) -> float:
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value).timestamp()
        seconds = float(value)
    except (ValueError, OverflowError):
        raise _serialization(f"{path} is not a time.") from None
    if not 0 <= seconds < _END_OF_TIME:
        raise _serialization(f"{path} is not a time.")
    return seconds


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _serialization(message: str) -> ApiError:
    return ApiError("SerializationException", message)
