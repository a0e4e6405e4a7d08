"""Images as the local socket shows them."""

from typing import Any

from fargate_agent.image.admin import ImageSummary


def render_image(image: ImageSummary) -> dict[str, Any]:
    """Return what is known of an image, and which tasks use it."""
    return {
        "name": image.name,
        "digest": image.digest,
        "sizeBytes": image.size_bytes,
        "unpackedBytes": image.unpacked_bytes,
        "createdAt": image.created_at.isoformat(),
        "lastUsedAt": image.used_at.isoformat(),
        "loaded": image.is_loaded,
        "usedBy": [
            {"taskArn": task.arn, "family": task.family, "revision": task.revision}
            for task in image.users
        ],
    }
