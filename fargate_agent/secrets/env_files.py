"""Files of variables, as `environmentFiles` of a task definition name them; pure.

Source: amazon-ecs-agent, agent/taskresource/envFiles; ECS developer guide, "Pass an individual
environment variable to an Amazon ECS container". What an invalid file does on Fargate is
unverified.
"""

import codecs
from typing import Final

COMMENT: Final = "#"
MAX_FILE_BYTES: Final = 1 << 20
"""Far more than the kernel gives a program: 128 KiB for a variable, 2 MiB with its arguments."""


class EnvFileError(ValueError):
    """A file has no variables that a container could be given. The text shows none of it."""


def parse_env_file(content: bytes) -> dict[str, str]:
    r"""Return the variables of a file. Of a name that stands there twice the last one counts.

    A value is what follows the first `=`, as it is: no quotes, no escapes, nothing is expanded.
    Lines that begin with `#`, that have no `=` or no name before it say nothing. A line ends with
    `\n` or `\r\n`; a byte order mark at the beginning is none of the text.

    Raises:
        EnvFileError: it isn't UTF-8, or has a NUL, which no variable can.

    Example:
        >>> parse_env_file(b"# a comment\nA=1\nB='two words'\r\nC=x=y")
        {'A': '1', 'B': "'two words'", 'C': 'x=y'}
    """
    variables: dict[str, str] = {}
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            text = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            raise EnvFileError(f"line {number} is not UTF-8") from None
        if "\0" in text:
            raise EnvFileError(f"line {number} has a NUL character")
        name, separator, value = text.partition("=")
        if separator and name and not text.startswith(COMMENT):
            variables[name] = value
    return variables
