"""What the settings say of single registries."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fargate_agent.setting_values import AbsolutePath, ProxyUrl


class RegistrySettings(BaseModel):
    """A table `[registries."HOST[:PORT]"]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    ca_file: AbsolutePath | None = None
    """A file of certificates in PEM form. A registry that is signed by one of them, or has one of
    them itself, is trusted like those that this machine trusts. It also counts for the other hosts
    that the registry refers to, of tokens or of layers, unless they have a `ca_file` of their own.
    Read for each pull."""
    proxy: Annotated[ProxyUrl | None, Field(repr=False)] = None
    """In place of `registry_proxy`, for this registry and the hosts that it refers to. Empty: no
    proxy."""
