"""The registries that may have an image, asked one after another: mirrors, and its own.

Each is asked with its own credentials, through the network of the task.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from yarl import URL

from fargate_agent.drivers import FindLogin
from fargate_agent.egress.retry import Retry, Tries
from fargate_agent.egress.session import Egress
from fargate_agent.errors import CannotPullContainerError, ResourceInitializationError
from fargate_agent.image.content import PlatformImage
from fargate_agent.image.document import InvalidDocumentError
from fargate_agent.image.mirrors import Candidate, Mirrors
from fargate_agent.image.pull import Pull
from fargate_agent.image.reference import InvalidReferenceError, Reference
from fargate_agent.image.registry.auth import Auths, Credentials
from fargate_agent.image.registry.ecr import EcrPasswords, parse_ecr_host
from fargate_agent.image.registry.hosts import Hosts
from fargate_agent.image.registry.protocol import Registry
from fargate_agent.image.registry.purse import AskEcr, PullPurse
from fargate_agent.plan import TaskPlan

log = logging.getLogger(__name__)

MIRROR_RETRY: Final = 2
"""Tries of each request where another registry can be asked instead."""

LOGIN_WAIT_S: Final = 15.0
"""For what the task definition has for the registry, where a copy or another registry will do."""

MAX_MIRROR_CHARS: Final = 400
"""Of what a mirror says: a reason has room for several."""

WITHOUT_AWS: Final = (
    "no password is asked for of ECR, since this machine does without AWS: give one for {host} in "
    "the agent's setting registry_auth_file or by 'fargate login', name another registry in "
    "registry_mirrors, or load the image with 'fargate images load'"
)

PullError = CannotPullContainerError | ResourceInitializationError
PULL_ERRORS: Final = (CannotPullContainerError, ResourceInitializationError)
"""Why an image can't be pulled; a copy may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a task gets at registries."""

    task: TaskPlan
    network: asyncio.Event
    """Set when it can be used."""
    find_login: FindLogin


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Pulls an image from the first registry that gives it."""

    egress: Egress
    mirrors: Mirrors
    hosts: Hosts
    inactivity_s: float
    find_auths: Callable[[], Auths]
    """Returns the operator's credentials; blocks, and raises `InvalidDocumentError`."""
    ecr: EcrPasswords | None = None
    """None: ECR is asked for no passwords."""
    trusted: ssl.SSLContext | None = None

    async def pull(self, pull: Pull, way: Way) -> PlatformImage:
        """Return what comes of the first name that can be pulled.

        Raises:
            CannotPullContainerError: none can; the text says why of each.
            ResourceInitializationError: the same, and there is no password for its own registry.
        """
        try:
            auths = await asyncio.to_thread(self.find_auths)
            candidates = self.mirrors.candidates(pull.reference)
        except (InvalidDocumentError, InvalidReferenceError) as error:
            raise CannotPullContainerError(str(error)) from error
        failures: list[tuple[Candidate, PullError]] = []
        for candidate in candidates:
            one = replace(pull, reference=candidate.reference)
            if candidate is not candidates[-1]:
                one = replace(one, tries=replace(pull.tries, retry=_hasten(pull.tries.retry)))
            try:
                return await self._pull_from(one, candidate, way, auths)
            except PULL_ERRORS as error:
                failures.append((candidate, error))
                if candidate is not candidates[-1]:
                    log.warning("%s: %s: %s", pull.reference.name, one.reference.name, error)
        raise _gather(pull.reference, failures)

    async def _pull_from(
        self, pull: Pull, candidate: Candidate, way: Way, auths: Auths
    ) -> PlatformImage:
        """Return the image, pulled by one name, through the network of the task."""
        registry, given = candidate.reference.registry, None
        hosts = self.hosts.for_registry(registry)
        if not candidate.is_mirror:
            given = await _find_given(way, pull.tries.retry)
        async with self.egress.session(way.task, self.inactivity_s, self.trusted) as session:
            purse = PullPurse(
                registry=registry,
                auths=auths,
                given=given,
                ask_ecr=self._ask_ecr(registry, hosts, way.task, pull.tries),
            )
            try:
                auths.check(registry)
                known = await purse.prepare()
            except InvalidDocumentError as error:
                raise CannotPullContainerError(str(error)) from error
            asked = Registry(session, candidate.reference, purse, hosts, pull.tries, known)
            image = await pull.resolve(asked)
            await pull.ticket.verify(asked, image)
            await pull.get_layers(image, asked)
        return replace(image, source=pull.reference.name if candidate.is_mirror else None)

    def _ask_ecr(self, registry: str, hosts: Hosts, task: TaskPlan, tries: Tries) -> AskEcr | None:
        host = parse_ecr_host(registry)
        if host is None:
            return None
        ecr = self.ecr

        async def ask(used: str | None) -> Credentials:
            if ecr is None:
                raise CannotPullContainerError(WITHOUT_AWS.format(host=registry))
            proxy = hosts.find_proxy(URL(ecr.url(host)))
            async with self.egress.session(task, self.inactivity_s, self.trusted, proxy) as session:
                return await ecr.get(session, host, task, tries, used)

        return ask


async def _find_given(way: Way, retry: Retry) -> Credentials | None:
    """Return what the task definition has for the registry; None if it has nothing."""
    try:
        async with asyncio.timeout(LOGIN_WAIT_S if retry.waits_shortly else None):
            login = await way.find_login()
    except TimeoutError as error:
        raise ResourceInitializationError(
            "unable to pull secrets or registry auth: the secret that repositoryCredentials names "
            f"was not there within {LOGIN_WAIT_S:g} s"
        ) from error
    return None if login is None else Credentials(username=login[0], password=login[1])


def _hasten(retry: Retry) -> Retry:
    """Wait less for a registry where another one can be asked."""
    return replace(
        retry,
        attempts=min(retry.attempts, MIRROR_RETRY),
        unreachable_attempts=1,
        longest_asked_pause_s=0,
    )


def _gather(reference: Reference, failures: Sequence[tuple[Candidate, PullError]]) -> PullError:
    """Return the error of an image that no registry has given, its own registry's first."""
    own = next((error for candidate, error in failures if not candidate.is_mirror), None)
    if own is not None and len(failures) == 1:
        return own
    told = [
        f"{candidate.reference.name}: {error.detail[:MAX_MIRROR_CHARS]}"
        for candidate, error in failures
        if candidate.is_mirror
    ]
    if own is None:
        return CannotPullContainerError(
            f"{reference.name} is pulled from its mirrors alone: {'; '.join(told)}"
        )
    return type(own)(f"{own.detail}; the mirrors failed too: {'; '.join(told)}")
