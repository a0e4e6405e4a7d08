"""What tasks are given by reference on a machine without AWS.

Secrets are those of `fargate secrets`; directories stand for buckets.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import TaskPlan
from fargate_agent.secrets.env_files import EnvFileError, parse_env_file
from fargate_agent.secrets.local_buckets import BucketError, read_object
from fargate_agent.secrets.local_names import candidates, name_to_set
from fargate_agent.secrets.local_store import LocalSecret, LocalSecrets, LocalSecretsError
from fargate_agent.secrets.objects import parse_object
from fargate_agent.secrets.pick import pick
from fargate_agent.secrets.references import (
    InvalidReferenceError,
    ParameterReference,
    SecretReference,
    parse_reference,
)
from fargate_agent.secrets.tries import FetchError

FAILED: Final = "unable to pull secrets or registry auth"
FILES_FAILED: Final = "failed to download env files"
READ_DEADLINE_S: Final = 30.0
"""For all files of a task: a directory may be on another machine, which is gone."""
PREVIOUS: Final = "AWSPREVIOUS"
"""Source: AWS Secrets Manager user guide, "Secret versions"."""


class LocalSource:
    """Stands for Secrets Manager, Systems Manager and S3. No role is asked for."""

    def __init__(self, secrets: LocalSecrets, buckets: Mapping[str, Path], region: str) -> None:
        """`buckets` has directories by the names of the buckets that they stand for."""
        self._secrets = secrets
        self._buckets = buckets
        self._region = region

    async def fetch(self, task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        """Return the values by what refers to them.

        Raises:
            ResourceInitializationError: one is not kept here; the text names all such, and says
                how to set them.
        """
        if not references:
            return {}
        try:
            wanted = {one: parse_reference(one, self._region) for one in sorted(references)}
            kept = await asyncio.to_thread(self._secrets.read)
            found = {text: find(kept, reference) for text, reference in wanted.items()}
            missing = [wanted[text] for text, name in found.items() if name is None]
            if missing:
                raise FetchError(_explain_missing(missing))
            return {
                text: _choose(name, kept[name], wanted[text])
                for text, name in found.items()
                if name is not None
            }
        except (FetchError, InvalidReferenceError, LocalSecretsError) as error:
            raise ResourceInitializationError(f"{FAILED}: {error}") from error

    async def fetch_files(
        self, task: TaskPlan, arns: Collection[str]
    ) -> Mapping[str, Mapping[str, str]]:
        """Return the variables of environment files by their ARNs.

        Raises:
            ResourceInitializationError: one is not here, or has no variables to give.
        """
        try:
            async with asyncio.timeout(READ_DEADLINE_S):
                return {
                    arn: await asyncio.to_thread(self._read_file, arn) for arn in sorted(set(arns))
                }
        except TimeoutError as error:
            raise ResourceInitializationError(
                f"{FILES_FAILED}: the directories of the agent's setting local_buckets can't be "
                f"read within {READ_DEADLINE_S:g} s"
            ) from error

    def _read_file(self, arn: str) -> Mapping[str, str]:
        try:
            return parse_env_file(read_object(self._buckets, parse_object(arn)))
        except (BucketError, EnvFileError, InvalidReferenceError) as error:
            raise ResourceInitializationError(f"{FILES_FAILED}: {error} ({arn})") from error


def find(
    kept: Mapping[str, LocalSecret], reference: SecretReference | ParameterReference
) -> str | None:
    """Return the name under which there is a value for a reference; None if there is none."""
    return next((name for name in candidates(reference) if name in kept), None)


def _choose(name: str, secret: LocalSecret, reference: SecretReference | ParameterReference) -> str:
    """Return the value that is meant. Stages but one, and versions, are those of AWS alone."""
    value = secret.value
    if not isinstance(reference, SecretReference):
        return value
    if reference.version_stage == PREVIOUS:
        if secret.previous is None:
            raise FetchError(f"the secret {name} has no previous value here ({PREVIOUS})")
        value = secret.previous
    return pick(value, reference.json_key, f"secret {name}") if reference.json_key else value


def _explain_missing(missing: Iterable[SecretReference | ParameterReference]) -> str:
    names = list(dict.fromkeys(map(name_to_set, missing)))
    if len(names) == 1:
        return (
            f"the secret {names[0]} has no value on this machine, which does without AWS: "
            f"fargate secrets set {names[0]}"
        )
    return (
        f"secrets {', '.join(names)} have no value on this machine, which does without AWS: "
        "set each with fargate secrets set NAME"
    )
