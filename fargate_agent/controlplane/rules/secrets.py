"""Rules about what comes into a container's environment, and where secrets may come from."""

import re
from collections import Counter
from typing import Final

from fargate_agent.controlplane.errors import ApiError, client_error
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.validate import Json

MAX_ENVIRONMENT_FILES: Final = 10
"""Source: ECS API, ContainerDefinition.environmentFiles."""

NO_EXECUTION_ROLE: Final = (
    "When you are specifying container secrets, you must also specify a value for "
    "'executionRoleArn'."
)

_S3_ARN: Final = re.compile(r"arn:aws[a-z0-9-]*:s3:::[^/\s]+/.+")
_SECRET_ARN: Final = re.compile(
    r"arn:aws[a-z0-9-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[\w/+=.@!-]+"
    r"(:[^:]*:[^:]*:[^:]*|::?)?",
    re.ASCII,
)
"""JSON key, version stage and version id may follow the name, or one to three colons.

Source: ECS developer guide, "Specifying sensitive data"; definitions of users of Fargate. That AWS
takes stage and id together, and fewer colons, is unverified.
"""
_COLONS: Final = 6
"""Of such an ARN without what may follow the name."""
_SECRET_NAME: Final = re.compile(r"[\w/+=.@!-]{1,512}", re.ASCII)
"""Source: Secrets Manager API, CreateSecret.Name."""
_SELECTOR: Final = r"(:(\d+|[A-Za-z_.-][\w.-]{0,99}))?"
"""Version or label of a parameter. Source: Systems Manager API, GetParameters.Names. That ECS takes
them is unverified."""
_PARAMETER_ARN: Final = re.compile(
    rf"arn:aws[a-z0-9-]*:ssm:[a-z0-9-]+:(?P<account>\d{{12}}):parameter/[\w./-]+{_SELECTOR}",
    re.ASCII,
)
_PARAMETER_NAME: Final = re.compile(rf"[\w./-]{{1,2048}}{_SELECTOR}", re.ASCII)
"""Source: Systems Manager API, GetParameter.Name."""

NO_ACCOUNT: Final = "000000000000"
"""The account of a control plane that was told none: that of another counts as its own there, so
that a definition from production can be registered."""


def check_environment(draft: Draft) -> None:
    """Raise if variables, files or secrets of a container are wrong."""
    for container in draft.containers:
        if not all(pair.get("name") for pair in container.get("environment", [])):  # unverified
            raise client_error("Environment variable name should not be null or empty.")
        _check_files(container)
        _check_names(container)
        _check_login(container)
        for secret in container.get("secrets", []):
            if "executionRoleArn" not in draft.request:
                raise client_error(NO_EXECUTION_ROLE)
            check_source(secret, draft.account)


def check_source(secret: Json, account: str) -> None:
    """Return if a secret, of a container or of a log driver, can be looked for.

    Raises:
        ApiError: it is neither a secret of Secrets Manager nor a parameter of this account.
    """
    source = secret["valueFrom"]
    if not source.startswith("arn:"):
        if not _PARAMETER_NAME.fullmatch(source):
            raise _wrong_parameter(secret)
    elif ":secretsmanager:" in source:
        if not _SECRET_ARN.fullmatch(source):  # unverified
            raise client_error("Invalid arn syntax.")
    elif ":ssm:" in source:
        _check_parameter_arn(secret, account)
    else:  # unverified
        raise client_error("Invalid arn syntax.")


def _check_parameter_arn(secret: Json, account: str) -> None:
    match = _PARAMETER_ARN.fullmatch(secret["valueFrom"])
    if match is None:
        raise _wrong_parameter(secret)
    if account not in {match["account"], NO_ACCOUNT}:
        raise client_error(
            "The Systems Manager parameter ARN has a different account ID than the current "
            f"account. The current account ID is {account} and the ARN account ID is "
            f"{match['account']}. Cross-account access for ARNs is not currently supported."
        )


def _wrong_parameter(secret: Json) -> ApiError:
    return client_error(
        f"The Systems Manager parameter name specified for secret {secret['name']} is invalid."
    )


def _check_files(container: Json) -> None:
    files = container.get("environmentFiles", [])
    if len(files) > MAX_ENVIRONMENT_FILES:
        raise client_error(
            "The maximum number of environment files was exceeded. Specify ten or less and try "
            "again."
        )
    if not all(_S3_ARN.fullmatch(file["value"]) for file in files):
        raise client_error("Invalid arn syntax.")


def _check_login(container: Json) -> None:
    login = container.get("repositoryCredentials", {}).get("credentialsParameter", "")
    if login.startswith("arn:"):
        is_secret = _SECRET_ARN.fullmatch(login) and login.count(":") == _COLONS
    else:
        is_secret = not login or _SECRET_NAME.fullmatch(login)
    if not is_secret:  # unverified
        raise client_error(
            f"The credentialsParameter of container '{container['name']}' must be the ARN or the "
            "name of a secret of Secrets Manager."
        )


def _check_names(container: Json) -> None:
    """Source: texts as users of RegisterTaskDefinition have reported them."""
    counts = Counter(secret["name"] for secret in container.get("secrets", []))
    if twice := [name for name, count in counts.items() if count > 1]:
        raise client_error(
            f"Duplicate secret names found: {', '.join(twice)}. Each secret name must be unique."
        )
    for pair in container.get("environment", []):
        if pair["name"] in counts:
            raise client_error(
                "The secret name must be unique and not shared with any new or existing "
                f"environment variables set on the container, such as '{pair['name']}'."
            )
