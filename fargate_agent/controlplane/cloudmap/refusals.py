"""What Cloud Map answers when it says no.

The kinds are those of its API reference. The texts are unverified, where nothing else is said.
"""

from typing import Any

from fargate_agent.controlplane.errors import ApiError


def invalid_input(text: str) -> ApiError:
    """Say that a value can't be."""
    return ApiError("InvalidInput", text)


def in_use(text: str) -> ApiError:
    """Say that something can't be deleted because something else needs it."""
    return ApiError("ResourceInUse", text)


def namespace_not_found(reference: str) -> ApiError:
    """Say that there is no such namespace."""
    return ApiError("NamespaceNotFound", f"Could not find namespace: {reference[:128]}.")


def service_not_found(reference: str) -> ApiError:
    """Say that there is no such service."""
    return ApiError("ServiceNotFound", f"Could not find service: {reference[:128]}.")


def instance_not_found(instance_id: str, service_id: str) -> ApiError:
    """Say that a service has no such instance."""
    return ApiError(
        "InstanceNotFound",
        f"Could not find instance {instance_id[:64]} of service {service_id[:64]}.",
    )


def refuse(kind: str, text: str, **members: Any) -> ApiError:  # noqa: ANN401 - members of an AWS error shape
    """Return the error of a kind that has further members; absent ones are left out."""
    known = {name: value for name, value in members.items() if value is not None}
    return ApiError(kind, text, **known)
