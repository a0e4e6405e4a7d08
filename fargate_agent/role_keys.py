"""Credentials as AWS gives them for a role."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleKeys:
    """Temporary credentials; the names are those that botocore's signer reads."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    expires_at: datetime
