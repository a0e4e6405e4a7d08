"""The keys that a logger signs with: those of the task's execution role, or root's own.

Source: amazon-ecs-agent, the credentials endpoint; AWS CLI user guide, "Configuration and
credential file settings".
"""

import posix
import time

from destinations.aws_answers import parse_object
from destinations.sigv4 import Keys
from network.connection import Connector
from network.endpoints import Endpoint
from reading.deadline import Deadline

REFRESH_S = 300
"""Keys that end so soon are asked for again."""
FILE = ".aws/credentials"
PROFILE = "[default]"


class Credentials:
    """Where keys come from, and the ones that came last."""

    _keys: Keys | None = None
    _refused = False

    def find_keys(self) -> Keys:
        """Return keys that are good, fetching them if need be.

        Raises:
            OSError: there are none.
        """
        if self._keys is None or self._refused or _ends_within(self._keys, REFRESH_S):
            try:
                self._keys = self._fetch()
            except OSError:
                if self._keys is None or _ends_within(self._keys, 0):
                    raise
            self._refused = False
        return self._keys

    def refuse(self) -> None:
        """The service doesn't take these keys: fetch others."""
        self._refused = True

    def _fetch(self) -> Keys:
        raise NotImplementedError


class EndpointCredentials(Credentials):
    """Keys of a role, which end after some hours."""

    def __init__(
        self, place: str, container_id: str, connector: Connector, deadline: Deadline
    ) -> None:
        """Take `/v2/credentials/<id>`, `:port/path`, a whole URL, or `unix:///socket` of the agent.

        On that socket the agent knows who asks; it is told for which container.

        Raises:
            ValueError: it is no such URL.
        """
        self._endpoint = Endpoint(place, connector, deadline, "/credentials/" + container_id)

    def _fetch(self) -> Keys:
        # No path in a text: it may be the secret that these keys are given for.
        server = self._endpoint.server
        try:
            answer = self._endpoint.ask()
        except OSError as error:
            raise _explain(f'Get "{server}": {error}') from None
        found = parse_object(answer.body)
        if answer.status != 200:
            why = found.get("message")
            why = f": {why}" if isinstance(why, str) else ""
            raise _explain(f"{server} answered {answer.status}{why}")
        texts = [found.get(name) or "" for name in _FIELDS]
        if not all(isinstance(text, str) for text in texts) or not texts[0] or not texts[1]:
            raise _explain(f"{server} gave no keys")
        return Keys(*texts)


class FileCredentials(Credentials):
    """Keys in the home of the user that a logger starts as; its environment names none.

    They are read at once: later on it may be somebody else, who mustn't.
    """

    def __init__(self) -> None:
        from pwd import getpwuid

        self._path = f"{getpwuid(posix.getuid()).pw_dir}/{FILE}"
        try:
            self.find_keys()
        except OSError:
            return  # whoever needs them is told

    def _fetch(self) -> Keys:
        try:
            # pathlib costs 2 MB.
            with open(self._path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                found = _parse_profile(file.read())
        except OSError as error:
            raise _no_provider(f"~/{FILE}: {error.strerror}") from None
        key, secret = found.get("aws_access_key_id"), found.get("aws_secret_access_key")
        if not key or not secret:
            raise _no_provider(f"~/{FILE} has no keys")
        return Keys(key, secret, found.get("aws_session_token", ""))


_FIELDS = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")


def _ends_within(keys: Keys, seconds: int) -> bool:
    """Compare as texts: RFC 3339 in UTC sorts as time does."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + seconds))
    return keys.expires != "" and keys.expires <= moment


def _parse_profile(text: str) -> dict[str, str]:
    found = {}
    section = ""
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if line.startswith("["):
            section = line.strip()
        elif equals and section == PROFILE:
            found[name.strip()] = value.strip()
    return found


def _explain(text: str) -> OSError:
    """Source: aws-sdk-go, aws/credentials/endpointcreds."""
    return OSError(f"CredentialsEndpointError: failed to load credentials caused by: {text}")


def _no_provider(text: str) -> OSError:
    """Source: aws-sdk-go, aws/credentials."""
    return OSError(
        "NoCredentialProviders: no valid providers in chain: the task definition has no "
        f"executionRoleArn, and there are no keys of the logger's user: {text}"
    )
