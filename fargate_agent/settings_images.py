"""Which images may run, as the settings of the agent tell it."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from fargate_agent.setting_values import AbsolutePath, check_prefix


def _check_image_prefix(text: str) -> str:
    """Return a prefix without the slash at its end; the empty one is that of all images.

    Raises:
        ValueError: no name of an image begins like that.
    """
    return check_prefix(text.removesuffix("/")) if text else text


ImagePrefix = Annotated[str, AfterValidator(_check_image_prefix)]


class ImageSignatureSettings(BaseModel):
    """What is asked of images whose names begin with a prefix."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    require: Literal["none", "digest", "key"]
    """`digest`: task definitions name these images by digest. `key`: they were signed with a key,
    as `cosign sign --key` does. `none`: neither, for a prefix within another one."""
    key: AbsolutePath | None = None
    """PEM file with the public key, or with several, any of which will do; for `key` only. It is
    read for each image."""
    loaded: bool = False
    """Whether images of `fargate images load` are admitted as they are."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.require == "key" and self.key is None:
            raise ValueError('require = "key" needs key, the file of the public key')
        if self.require != "key" and self.key is not None:
            raise ValueError('key is for require = "key" only')
        return self
