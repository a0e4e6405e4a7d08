"""What `valueFrom` of a task definition may be; pure.

Source: ECS developer guide, specifying sensitive data; amazon-ecs-agent, agent/asm, agent/ssm.
"""

import re
from dataclasses import dataclass
from typing import Final

SECRET_PARTS: Final = 7
"""`arn:aws:secretsmanager:us-east-1:123456789012:secret:name-AbCdEf`"""
QUALIFIERS: Final = 3
"""`:json-key:version-stage:version-id`, each of which may be empty."""


_REGION: Final = re.compile(r"[a-z0-9-]{0,64}")
"""It becomes part of the name of a host."""

BY_NAME: Final = "secretsmanager:"
"""Before the name of a secret, where a bare name means a secret: `credentialsParameter`."""


class InvalidReferenceError(ValueError):
    """Nothing can be read from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretReference:
    """A secret of Secrets Manager, or one member of it."""

    region: str
    arn: str
    """Without what may follow the name."""
    json_key: str = ""
    """Member of the object that the secret is; empty: all of it."""
    version_stage: str = ""
    version_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterReference:
    """A parameter of Systems Manager."""

    region: str
    name: str
    """Name or ARN."""


def parse_reference(value_from: str, region: str) -> SecretReference | ParameterReference:
    """Read a reference; `region` is that of a name that says none.

    Raises:
        InvalidReferenceError: it is none.
    """
    parts = value_from.split(":")
    if value_from.startswith(BY_NAME):
        return SecretReference(region=region, arn=value_from.removeprefix(BY_NAME))
    if parts[0] != "arn":
        return ParameterReference(region=region, name=value_from)
    if len(parts) < 6 or not _REGION.fullmatch(parts[3]):
        raise InvalidReferenceError(f"'{value_from}' is no secret and no parameter")
    if parts[2] == "ssm":
        return ParameterReference(region=parts[3] or region, name=value_from)
    if parts[2] == "secretsmanager":
        return _parse_secret(value_from, parts, region)
    raise InvalidReferenceError(f"'{value_from}' is no secret and no parameter")


def _parse_secret(value_from: str, parts: list[str], region: str) -> SecretReference:
    qualifiers = parts[SECRET_PARTS:]
    if not any(qualifiers) and len(qualifiers) < QUALIFIERS:  # real definitions end in `:` or `::`
        qualifiers = [""] * QUALIFIERS
    if len(parts) < SECRET_PARTS or len(qualifiers) != QUALIFIERS or parts[5] != "secret":
        raise InvalidReferenceError(
            "unexpected ARN format with parameters when trying to retrieve ASM secret: "
            f"'{value_from}'"
        )
    json_key, stage, version = qualifiers
    return SecretReference(
        region=parts[3] or region,
        arn=":".join(parts[:SECRET_PARTS]),
        json_key=json_key,
        version_stage=stage,
        version_id=version,
    )
