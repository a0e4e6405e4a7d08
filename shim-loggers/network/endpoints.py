"""What the task metadata endpoint tells a logger, and only a logger."""

from network.web_client import WebClient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from network.connection import Connector
    from reading.deadline import Deadline

HOST = "http://169.254.170.2"
"""Source: Amazon ECS developer guide, "Task metadata endpoint"."""
MAX_TOLD_BYTES = 512
"""Of an answer that says why not. Source: shim-loggers-for-containerd."""


def fetch(place: str, connector: "Connector", deadline: "Deadline") -> bytes:
    """Return what stands at a path of the metadata endpoint, or at a whole `http://…` URL.

    Raises:
        OSError: it can't be had; the text has the URL, the status and what the server said.
        ValueError: it is no URL.
    """
    url = place if "://" in place else HOST + place
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    client = WebClient(f"{scheme}://{host}", connector, deadline)
    try:
        answer = client.request("GET", "/" + path, {}, b"")
    finally:
        client.close()
    if answer.status != 200:
        said = answer.body[:MAX_TOLD_BYTES].decode(errors="replace").strip()
        raise OSError(f"GET {url}: {answer.status}: {said}")
    return answer.body
