"""From the settings of an agent to what its plans have to know of the machine."""

from fargate_agent.plan import HostPaths, Site
from fargate_agent.plan.host_paths import ALWAYS_GUARDED
from fargate_agent.settings import AgentSettings


def make_site(settings: AgentSettings) -> Site:
    """Return what plans have to know of this machine; follows links of the agent's directories."""
    own = (settings.state_dir, settings.netns_dir)
    return Site(
        netns_dir=settings.netns_dir,
        tasks_dir=settings.state_dir / "tasks",
        logs_dir=settings.state_dir / "logs",
        eni_ifname=settings.eni_ifname,
        region=settings.region,
        efs=settings.efs,
        is_local=settings.is_local,
        logs_are_local=settings.logs_are_local,
        host_paths=HostPaths(
            allowed=settings.host_volume_paths,
            guarded=(*ALWAYS_GUARDED, *own, *(directory.resolve() for directory in own)),
        ),
        default_log_driver="json-file" if settings.log_copy else "none",
    )
