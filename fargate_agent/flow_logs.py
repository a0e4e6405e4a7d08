"""Flow logs of one agent: made of its settings, and served."""

import os
from datetime import UTC, datetime, timedelta
from typing import Final

import aiohttp

from fargate_agent.aws.calls import AwsSite
from fargate_agent.aws.machine_keys import read_environment_keys, read_machine_keys
from fargate_agent.findings import Findings
from fargate_agent.network.flowlogs.collector import Collector
from fargate_agent.network.flowlogs.destination import Destination
from fargate_agent.network.flowlogs.file import FlowLogFile
from fargate_agent.network.flowlogs.log_group import FlowLogGroup
from fargate_agent.network.flowlogs.service import FlowLogs, put_accounting_back
from fargate_agent.network.names import log_group_number, name_instance
from fargate_agent.role_keys import RoleKeys
from fargate_agent.settings import AgentSettings
from fargate_agent.settings_network import FlowLogSettings
from fargate_agent.task.supervisor import Supervisor

KEYS_KEPT: Final = timedelta(minutes=1)
"""They are read for each interval."""


async def serve_flow_logs(
    settings: AgentSettings,
    http: aiohttp.ClientSession,
    supervisor: Supervisor,
    findings: Findings,
) -> None:
    """Write flow logs until cancelled, if they are wanted; else undo what was done for them."""
    if settings.flow_logs is None:
        await put_accounting_back(settings.state_dir)
        return
    flow_logs = FlowLogs(
        Collector(lambda: (eni for run in supervisor.runs() for eni in run.plan.enis)),
        _make_destination(settings, settings.flow_logs, http),
        log_group_number(name_instance(settings.state_dir)),
        settings.flow_logs.interval_s,
        settings.state_dir,
        findings,
    )
    await flow_logs.serve()


def _make_destination(
    settings: AgentSettings, flow_logs: FlowLogSettings, http: aiohttp.ClientSession
) -> Destination:
    if flow_logs.file is not None:
        return FlowLogFile(flow_logs.file)

    def read_keys() -> RoleKeys:
        expires_at = datetime.now(UTC) + KEYS_KEPT
        keys = read_environment_keys(os.environ, expires_at)
        return keys or read_machine_keys(settings.aws_credentials_file, expires_at)

    aws = AwsSite(region=settings.region, endpoint_url=settings.aws_endpoint_url)
    return FlowLogGroup(http, aws, flow_logs.log_group or "", read_keys)
