"""What containerd needn't be asked, for this agent has made the process of the container itself."""

from fargate_agent.plan import ContainerPlan


class OwnProcesses:
    """Remembers the present processes of containers that weren't taken over from another agent."""

    def __init__(self) -> None:
        self._log_uris: dict[str, str] = {}
        self._unstarted: set[str] = set()

    def note_made(self, container: ContainerPlan, log_uri: str | None) -> None:
        """A process was made just now, whose output goes there."""
        self._log_uris[container.id] = log_uri or ""
        self._unstarted.add(container.id)

    def take_unstarted(self, container: ContainerPlan) -> bool:
        """Whether it is certain that the process was never started; only once, as it will be."""
        is_unstarted = container.id in self._unstarted
        self._unstarted.discard(container.id)
        return is_unstarted

    def find_log_uri(self, container: ContainerPlan) -> str | None:
        """Return where the output goes, empty if it is thrown away; None if that isn't known."""
        return self._log_uris.get(container.id)

    def forget(self, container: ContainerPlan) -> None:
        """The container is gone."""
        self._log_uris.pop(container.id, None)
        self._unstarted.discard(container.id)
