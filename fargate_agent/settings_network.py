"""What the settings of the agent say of networks, in detail."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fargate_agent.setting_values import AbsolutePath, check_host_port, matching

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

LogGroupName = Annotated[
    str, matching(r"[A-Za-z0-9_./#-]{1,512}", "must be the name of a log group")
]
"""Source: CloudWatch Logs API, CreateLogGroup."""


class FlowLogSettings(BaseModel):
    """The table `[flow_logs]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    file: AbsolutePath | None = None
    """The file that gets the records, mode 0600; of this agent alone. Its directory has to be
    there."""
    max_size_mib: Annotated[int, Field(ge=1, le=1 << 20)] = 64
    """Size at which the file gets the name `FILE.1`, and another one is begun."""
    max_files: Annotated[int, Field(ge=1, le=1000)] = 4
    """How many files there are in the end, with the one that grows."""
    log_group: LogGroupName | None = None
    """In place of `file`: the log group of CloudWatch Logs that gets the records, in `region`. It
    is made if it isn't there. `awslogs_endpoint` and `aws_endpoint_url` count for it too."""
    credentials_file: AbsolutePath | None = None
    """With `log_group`: a shared credentials file with AWS keys in profile `default`, mode 0600.
    They need `logs:PutLogEvents`, `logs:CreateLogStream` and `logs:CreateLogGroup`."""
    interval_s: Literal[60, 600] = 600
    """What one record adds up, in seconds. Source: Amazon VPC user guide, "Aggregation interval".
    """

    @model_validator(mode="after")
    def _check(self) -> "FlowLogSettings":
        if (self.file is None) == (self.log_group is None):
            raise ValueError("needs either file or log_group")
        if (self.log_group is None) != (self.credentials_file is None):
            raise ValueError("log_group and credentials_file need each other")
        return self
