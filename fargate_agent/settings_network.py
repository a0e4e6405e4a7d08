"""What the settings of the agent say of networks, in detail."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from fargate_agent.setting_values import AbsolutePath, check_host_port, matching


class FlowLogSettings(BaseModel):
    """Where flow logs go."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    file: AbsolutePath | None = None
    """A file, which only root reads. It gets to 64 MiB, and four older ones are kept."""
    log_group: (
        Annotated[str, matching(r"[.\-_/#A-Za-z0-9]{1,512}", "must be the name of a log group")]
        | None
    ) = None
    """A log group of CloudWatch Logs, which is made if it isn't there."""
    interval_s: Literal[60, 600] = 600
    """How long flows are gathered, in seconds."""

    @model_validator(mode="after")
    def _check(self) -> "FlowLogSettings":
        if (self.file is None) == (self.log_group is None):
            raise ValueError("needs either file or log_group")
        return self


CNI_BIN_DIRS: Final = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
"""Where those are who package CNI plugins put them: upstream, and Debian."""


def parse_host_port(text: str) -> tuple[str, int, int]:
    """Return protocol, first and last port; without a protocol it is TCP.

    Raises:
        ValueError: as `check_host_port`.
    """
    ports, _, protocol = check_host_port(text).partition("/")
    first, _, last = ports.partition("-")
    return protocol or "tcp", int(first), int(last or first)


HostPort = Annotated[str, AfterValidator(check_host_port)]
