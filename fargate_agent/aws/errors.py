"""Why there are no credentials."""


class RoleError(Exception):
    """There are no credentials of a role to be had. The text holds no secret and no path."""

    def __init__(self, text: str, *, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass
        """Another try, after a while, may succeed."""
