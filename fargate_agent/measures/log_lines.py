"""How many lines of each level a program has logged: errors, without what they say."""

import logging


class LogLines(logging.Handler):
    """Counts lines by level, from warnings on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts = {"warning": 0, "error": 0, "critical": 0}

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line."""
        level = record.levelname.lower()
        if level in self.counts:
            self.counts[level] += 1

    def __enter__(self) -> "LogLines":
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
