"""The composition root: builds clients, drivers and services, and runs them until SIGTERM.

SIGTERM cancels the services. Tasks go on; the next agent adopts them.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
from botocore.credentials import Credentials

from fargate_agent.acs.api import ControlPlane
from fargate_agent.acs.reporter import Reporter
from fargate_agent.acs.responder import Responder
from fargate_agent.acs.session import Registration, Session
from fargate_agent.containerd.client import Containerd
from fargate_agent.drivers import Drivers
from fargate_agent.findings import Findings
from fargate_agent.image.store import ContainerdImageStore
from fargate_agent.local.logs import prune_logs
from fargate_agent.local.server import LocalServer
from fargate_agent.logdriver.jsonfile import JsonFileDriver
from fargate_agent.network.bridge import Bridges
from fargate_agent.network.dns import (
    read_host_nameservers,
    render_hostname,
    render_hosts,
    render_resolv_conf,
)
from fargate_agent.network.macvlan import MacvlanEni
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.network.netlink import read_link_stats
from fargate_agent.network.netns import KernelNetns
from fargate_agent.network.sweep import sweep
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniKind, Site, TaskPlan
from fargate_agent.runtime.oom import watch_oom_kills
from fargate_agent.runtime.runc import RuncRuntime
from fargate_agent.settings import AgentSettings
from fargate_agent.task.status import StateChange
from fargate_agent.task.store import TaskStore, read_boot_id
from fargate_agent.task.supervisor import Supervisor
from fargate_agent.tmds.server import TaskMetadata
