"""What one pull may show to the registry of its image, and in which order it is looked for.

First what the task definition says, then what the operator gave, then what ECR gives to the
execution role. None of it is shown to a mirror, which is another registry and has its own.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fargate_agent.image.registry.auth import Auths, Credentials

AskEcr = Callable[[str | None], Awaitable[Credentials]]
"""Returns the password of an execution role, other than the header that was refused; raises
`TaskError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullPurse:
    """The credentials for one name of an image."""

    registry: str
    """Of that name."""
    auths: Auths
    given: Credentials | None = None
    """Those of `repositoryCredentials`."""
    ask_ecr: AskEcr | None = None
    """None: the registry isn't one of ECR, or ECR isn't asked."""

    async def find(self, registry: str, used: str | None) -> Credentials | None:
        """As `protocol.Purse` says."""
        own = registry == self.registry
        if own and self.given is not None:
            return self.given
        found = await self.auths.find(registry)
        if found is None and own and self.ask_ecr is not None:
            return await self.ask_ecr(used)
        return found

    async def prepare(self) -> Credentials | None:
        """Return the password of ECR where it will be asked for anyway: it saves a round trip.

        And the refusal of ECR says more than that of the registry.

        Raises:
            TaskError: it gives no password.
        """
        if self.given is None and self.ask_ecr is not None and not self.auths.has(self.registry):
            return await self.ask_ecr(None)
        return None
