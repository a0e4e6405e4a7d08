"""What tasks ask the control plane through their metadata endpoint, with the agent's own key."""

from typing import Any

from fargate_agent.acs.api import ControlPlane, ControlPlaneError, ControlPlaneUnreachableError
from fargate_agent.tmds.control_plane import Calls, RefusedError, UnreachableError


class CallsForTasks(Calls):
    """Calls the control plane of this agent."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane

    async def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._control_plane.call(operation, request)
        except ControlPlaneError as error:
            raise RefusedError(
                error.code, error.message, status=error.status, request_id=error.request_id
            ) from error
        except ControlPlaneUnreachableError as error:
            raise UnreachableError(str(error)) from error
