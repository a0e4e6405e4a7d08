"""Makes flow logs as the settings say."""

from datetime import UTC, datetime
from functools import partial

import aiohttp

from fargate_agent.aws.calls import AwsSite
from fargate_agent.aws.cloudwatch_logs import CloudWatchLogs
from fargate_agent.aws.machine_keys import PROFILE, read_machine_keys
from fargate_agent.findings import Findings
from fargate_agent.network.flow_logs.flow_logs import FlowLogs
from fargate_agent.network.flow_logs.log_file import LogFile
from fargate_agent.network.flow_logs.log_group import LogGroup
from fargate_agent.network.names import name_instance
from fargate_agent.settings import AgentSettings

NEVER = datetime.max.replace(tzinfo=UTC)
"""When the keys of a file expire, which is read for each request."""


def make_flow_logs(
    settings: AgentSettings, http: aiohttp.ClientSession, findings: Findings
) -> FlowLogs:
    """Make what logs the flows of ENIs, or nothing. Touches nothing."""
    interval_s = 0 if settings.flow_logs is None else settings.flow_logs.interval_s
    instance = name_instance(settings.state_dir)
    return FlowLogs(instance, settings.state_dir, _make_sink(settings, http), interval_s, findings)


def _make_sink(settings: AgentSettings, http: aiohttp.ClientSession) -> LogFile | LogGroup | None:
    said = settings.flow_logs
    if said is None:
        return None
    if said.file is not None:
        return LogFile(said.file, said.max_size_mib << 20, said.max_files)
    read_keys = partial(
        read_machine_keys, said.credentials_file, NEVER, PROFILE, "flow_logs.credentials_file"
    )
    endpoint = settings.awslogs_endpoint or settings.aws_endpoint_url
    site = AwsSite(region=settings.region, endpoint_url=endpoint)
    return LogGroup(CloudWatchLogs(http, site, read_keys), said.log_group or "")
