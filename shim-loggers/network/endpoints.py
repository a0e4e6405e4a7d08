"""What a logger is told, and nobody else: by the task metadata endpoint, or on a unix socket."""

from network.web_client import Answer, WebClient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from network.connection import Connector
    from reading.deadline import Deadline

HOST = "http://169.254.170.2"
"""Source: Amazon ECS developer guide, "Task metadata endpoint"."""
MAX_TOLD_BYTES = 512
"""Of an answer that says why not. Source: shim-loggers-for-containerd."""


class Endpoint:
    """A place where something can be asked for."""

    def __init__(
        self, place: str, connector: "Connector", deadline: "Deadline", unix_path: str = ""
    ) -> None:
        """Take a path of the metadata endpoint, `:port/path`, a whole URL or `unix:///socket`.

        `unix_path` is what is asked for on a unix socket, as its URL has no room for that.

        Raises:
            ValueError: it is no URL.
        """
        self.url = place if "://" in place else HOST + place
        scheme, _, rest = self.url.partition("://")
        host, slash, path = rest.partition("/")
        if scheme == "unix":
            self.server, self._path = self.url, unix_path
        else:
            self.server, self._path = f"{scheme}://{host}", slash + path or "/"
        self._client = WebClient(self.server, connector, deadline)

    def ask(self) -> Answer:
        """Return what is answered.

        Raises:
            OSError: nobody answers.
        """
        try:
            return self._client.request("GET", self._path, {"Accept": "application/json"}, b"")
        finally:
            self._client.close()

    def fetch(self) -> bytes:
        """Return what stands there.

        Raises:
            OSError: it can't be had; the text has the URL, the status and what the server said.
        """
        answer = self.ask()
        if answer.status != 200:
            said = answer.body[:MAX_TOLD_BYTES].decode(errors="replace").strip()
            raise OSError(f"GET {self.url}: {answer.status}: {said}")
        return answer.body
