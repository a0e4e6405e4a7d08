"""How far a pull is, added up over its layers."""

from collections.abc import Callable, Iterable

from fargate_agent.containerd.types import Descriptor
from fargate_agent.drivers import PullProgress


class Progress:
    """Tells of one pull whenever something has changed."""

    def __init__(self, image: str, tell: Callable[[PullProgress], None]) -> None:
        self._image = image
        self._tell = tell
        self._fetched: dict[str, int] = {}
        self._total_bytes = 0
        self._unpacked_layers = 0
        self._total_layers = 0
        self._retry = ""

    def fetched_bytes(self, digest: str) -> int:
        """Return how much of a layer is there; 0 for one that doesn't count."""
        return self._fetched.get(digest, 0)

    def note_retry(self, text: str) -> None:
        """Note which try is next and why; an empty text when it has succeeded."""
        self._retry = text
        self._report()

    def begin(self, missing: Iterable[Descriptor], total_layers: int) -> None:
        """Note what has to be fetched."""
        sizes = {layer.digest: layer.size for layer in missing}
        self._fetched = dict.fromkeys(sizes, 0)
        self._total_bytes = sum(sizes.values())
        self._total_layers = total_layers
        self._report()

    def note_fetched(self, digest: str, fetched_bytes: int) -> None:
        """Note how much of a layer is there; one that was there before doesn't count."""
        if digest in self._fetched:
            self._fetched[digest] = fetched_bytes
            self._report()

    def note_unpacked(self, layers: int) -> None:
        """Note how many layers are unpacked."""
        self._unpacked_layers = layers
        self._report()

    def end(self, layers: int) -> None:
        """Note that the image is there."""
        self._unpacked_layers = self._total_layers = layers
        self._retry = ""
        self._report(done=True)

    def _report(self, *, done: bool = False) -> None:
        self._tell(
            PullProgress(
                image=self._image,
                fetched_bytes=sum(self._fetched.values()),
                total_bytes=self._total_bytes,
                unpacked_layers=self._unpacked_layers,
                total_layers=self._total_layers,
                retry=self._retry,
                done=done,
            )
        )
