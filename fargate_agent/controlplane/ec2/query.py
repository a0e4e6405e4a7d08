"""From the form of a query, `Filter.1.Name=…`, to a request as EC2's model describes it; pure.

Source: EC2 API reference, "Making requests" and "Error codes".
"""

from typing import Any, Final
from urllib.parse import parse_qsl

from fargate_agent.controlplane.ec2.shapes import API_VERSION, query_name
from fargate_agent.controlplane.ec2.xml import NO_XML
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.validate import Json

FORM_CONTENT_TYPE: Final = "application/x-www-form-urlencoded"

MAX_PARAMETERS: Final = 2000
"""A thousand ids, and as much for filters."""
MAX_INTEGER_DIGITS: Final = 10
"""Of a signed number of 32 bits, without its sign."""
MAX_DIGITS: Final = {"integer": MAX_INTEGER_DIGITS, "long": 19}
"""A long one has 64 bits."""

_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}

Tree = dict[str, Any]
"""Parameters by the parts of their names; a leaf is a string."""


def parse_form(body: bytes) -> dict[str, str]:
    """Return the parameters of a query.

    Raises:
        ApiError: it is no form, or has a parameter twice.
    """
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise _malformed() from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _malformed()
    return found


def parse_action(body: bytes) -> str:
    """Return the name of the operation that a query is for; it needn't exist.

    Raises:
        ApiError: the query can't be read, names none, or is for another version of the API.
    """
    form = parse_form(body)
    for name in ("Action", "Version"):
        if not form.get(name):
            raise ApiError("MissingParameter", f"The request must contain the parameter {name}")
    if form["Version"] != API_VERSION:
        raise ApiError(
            "NoSuchVersion",
            f"The requested version ({form['Version'][:32]}) of service AmazonEC2 does not exist",
        )
    return form["Action"]


def parse_request(form: dict[str, str], shape: Any) -> Json:  # noqa: ANN401 - botocore ships no types
    """Return the members of a request as `shape` describes them.

    Raises:
        ApiError: a parameter is unknown, or not of its kind.
    """
    tree: Tree = {}
    for name, value in form.items():
        if name not in {"Action", "Version"}:
            _plant(tree, name, value)
    parsed: Json = _parse(tree, shape, "")
    return parsed


def _plant(tree: Tree, name: str, value: str) -> None:
    *path, last = name.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise _unknown(name)
    if last in tree:
        raise _unknown(name)
    tree[last] = value


def _parse(value: Any, shape: Any, name: str) -> Any:  # noqa: ANN401 - any value, any shape
    if isinstance(value, dict):
        if shape.type_name == "structure":
            return _parse_structure(value, shape, name)
        if shape.type_name == "list":
            return _parse_list(value, shape, name)
        raise _unknown(f"{name}.{next(iter(value))}")
    if shape.type_name in {"structure", "list"}:
        raise _unknown(name)
    return _parse_scalar(value, shape.type_name, name)


def _parse_structure(tree: Tree, shape: Any, name: str) -> Json:  # noqa: ANN401 - any shape
    members = {query_name(each, member): each for each, member in shape.members.items()}
    parsed: Json = {}
    for part, value in tree.items():
        path = f"{name}.{part}".lstrip(".")
        if part not in members:
            raise _unknown(path)
        parsed[members[part]] = _parse(value, shape.members[members[part]], path)
    return parsed


def _parse_list(tree: Tree, shape: Any, name: str) -> list[Any]:  # noqa: ANN401 - any shape
    for part in tree:
        if not (part.isascii() and part.isdigit() and len(part) <= MAX_INTEGER_DIGITS):
            raise _unknown(f"{name}.{part}")
    return [_parse(tree[part], shape.member, f"{name}.{part}") for part in sorted(tree, key=int)]


def _parse_scalar(text: str, kind: str, name: str) -> str | int | bool:
    if kind == "boolean" and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    digits = text.removeprefix("-")
    if kind in MAX_DIGITS and digits.isascii() and digits.isdigit():
        if len(digits) <= MAX_DIGITS[kind]:
            return int(text)
    elif kind == "string":
        if NO_XML.search(text):
            raise ApiError("InvalidParameterValue", f"{name} has a character that XML can't have")
        return text
    raise ApiError(
        "InvalidParameterValue", f"Invalid value '{text[:64]}' for {name}; it must be a {kind}"
    )


def _unknown(name: str) -> ApiError:
    return ApiError("UnknownParameter", f"The parameter {name[:128]} is not recognized")


def _malformed() -> ApiError:
    return ApiError("MalformedQueryString", "The query string contains a syntax error")
