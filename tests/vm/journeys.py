"""What one machine goes through, from its first boot to the day when the product has left it."""

from collections.abc import Callable
from functools import partial
from typing import Final

from tests.vm import boots, efs, enis, injection, life, lifecycle, services, tasks
from tests.vm.lab import Lab, Progress
from tests.vm.machine import OUTSIDE_ADDRESS
from tests.vm.walkthrough import Walkthrough

_KNOW_THE_REGISTRY: Final = (
    f"sed -i '1i insecure_registries = [\"{OUTSIDE_ADDRESS}:5000\"]' /etc/fargate/agent.toml"
)
_PREFER_CACHED: Final = (
    "sed -i '1i image_pull_behavior = \"prefer-cached\"' /etc/fargate/agent.toml"
)
"""As the document does; a trunk that leads to the machine itself leads to no registry."""
_RELAX: Final = "sed -i '1i relaxed_clusters = [\"default\"]' /etc/fargate/control-plane.toml"
"""For log drivers that Fargate hasn't."""


def go_by_the_document(lab: Lab, progress: Progress) -> None:
    """Do what docs/install.md says, with tasks of every kind beside it."""
    before = _begin(lab, progress)
    walk = Walkthrough(lab, progress)
    walk.go_to("A first task")
    services.check_services(lab, progress)
    lab.sh(_KNOW_THE_REGISTRY)  # before the first `systemctl reload` of the document
    lab.sh(_RELAX)  # before the document restarts the control plane
    walk.go_on()
    walk.go_on()  # its task ends if it gets no stats in time
    lab.side_by_side(
        partial(walk.go_to, "On the network of a NIC"),
        partial(tasks.start_steady, lab, progress),
        partial(tasks.check_web_and_client, lab, progress),
        partial(tasks.check_loggers, lab, progress),
    )
    walk.go_to("Settings")
    lab.side_by_side(
        partial(walk.go_to, "Upgrade"),
        partial(tasks.check_macvlan, lab, progress),
        partial(tasks.check_journald, lab, progress),
        partial(tasks.check_users, lab, progress),
        partial(life.check_confinement, lab, progress),
        partial(tasks.check_steady, lab, progress),
    )
    lifecycle.bring_next_version(lab)
    walk.go_to("Uninstall")
    lifecycle.check_upgraded(lab, progress)
    services.check_journal(lab, progress, container="client")
    services.check_log(lab, progress)
    walk.go_on()
    lifecycle.check_uninstalled(lab, progress, before)
    walk.go_to_end()
    lifecycle.check_clean(lab, progress, before)


def go_through_faults(lab: Lab, progress: Progress) -> None:
    """Install, then let happen to the machine what an operator is woken for."""
    before = _begin(lab, progress)
    lifecycle.install(lab, progress)
    lab.sh(f"{_KNOW_THE_REGISTRY} && {_PREFER_CACHED} && systemctl reload fargate-agent")
    lab.side_by_side(
        partial(tasks.start_steady, lab, progress),
        partial(tasks.check_cpu_limit, lab, progress),
        partial(tasks.check_memory_limits, lab, progress),
        partial(services.check_second_agent, lab, progress),
    )
    services.check_settings(lab, progress)
    services.check_restarts(lab, progress)
    life.check_killed_logger(lab, progress)
    efs.check_efs(lab, progress)
    injection.check_injection(lab, progress)
    services.check_journal(lab, progress, container="eater")
    services.check_full_disks(lab, progress)
    services.check_log(lab, progress)
    boots.check_reboot(lab, progress)
    boots.check_power_cut(lab, progress)
    boots.check_poor_machine(lab, progress)
    lifecycle.purge(lab, progress)
    lifecycle.check_clean(lab, progress, before)


def go_the_short_way(lab: Lab, progress: Progress) -> None:
    """Install, run a task, reboot, run another, uninstall: what every `make test` does."""
    before = _begin(lab, progress)
    lifecycle.install(lab, progress)
    services.check_services(lab, progress)
    lab.sh(_RELAX)  # read at the reboot; an edited file is to outlive `make uninstall`
    lab.sh(f"{_KNOW_THE_REGISTRY} && systemctl reload fargate-agent")
    tasks.check_hello(lab, progress, when="after the installation")
    tasks.start_steady(lab, progress)
    life.check_killed_logger(lab, progress)
    boots.check_reboot(lab, progress)
    tasks.check_hello(lab, progress, when="after the reboot")
    life.check_confinement(lab, progress)
    lifecycle.uninstall(lab, progress)
    lifecycle.check_uninstalled(lab, progress, before)


def go_to_the_file_server(lab: Lab, progress: Progress) -> None:
    """Install, and run tasks on an NFS server alone."""
    _begin(lab, progress)
    lifecycle.install(lab, progress)
    lab.sh(f"{_KNOW_THE_REGISTRY} && systemctl reload fargate-agent")
    efs.check_efs(lab, progress)


def go_to_other_networks(lab: Lab, progress: Progress) -> None:
    """Install, and run tasks whose ENIs are NICs and VLANs."""
    _begin(lab, progress)
    lifecycle.install(lab, progress)
    lab.sh(f"{_KNOW_THE_REGISTRY} && {_PREFER_CACHED}")
    enis.prepare(lab)
    enis.check_nic(lab, progress)
    enis.check_branch_plugin(lab, progress)
    enis.check_vlan(lab, progress)


def go_through_injected_faults(lab: Lab, progress: Progress) -> None:
    """Install, and run a task that makes its own network worse."""
    _begin(lab, progress)
    lifecycle.install(lab, progress)
    lab.sh(f"{_KNOW_THE_REGISTRY} && systemctl reload fargate-agent")
    injection.check_injection(lab, progress)


def _begin(lab: Lab, progress: Progress) -> dict[str, set[str]]:
    """Boot, and return what the machine holds before the product comes."""
    boots.boot(lab.machine, progress)
    lab.sh(f"systemctl is-system-running --wait; tar -xf /dev/vdb -C /root; {tasks.ADD_USERS}")
    return lifecycle.look(lab)


JOURNEYS: Final[dict[str, Callable[[Lab, Progress], None]]] = {
    "short": go_the_short_way,
    "operator": go_by_the_document,
    "faults": go_through_faults,
    "efs": go_to_the_file_server,
    "injection": go_through_injected_faults,
    "eni": go_to_other_networks,
}
WHOLE: Final = ("operator", "faults")
"""These together go every way of the other ones but `eni`."""
