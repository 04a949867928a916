"""Structured logs: one JSON object a line on standard error, or plain text for a person."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import orjson

Format = Literal["json", "text"]

#: Attributes of every `LogRecord`; what a call adds by `extra=` is what is not among them.
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One line of JSON: time, level, logger, message, whatever `extra` named, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: item for key, item in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:
            # Larger than 64 bits, no Unicode, or keyed otherwise than by text.
            return json.dumps(line, default=str, skipkeys=True)


class TextFormatter(logging.Formatter):
    """The same for eyes: `12:00:00.000 WARNING moorage_gateway: message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        extra = "".join(
            f" {key}={item}" for key, item in vars(record).items() if key not in _STANDARD
        )
        line = f"{at} {record.levelname} {record.name}: {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str = "info", form: Format = "json", stream: TextIO | None = None) -> None:
    """Send all logs of the process to one place.

    Parameters
    ----------
    level
        A name of `logging`'s, in any case.
    form
        "json" or "text".
    stream
        Standard error when not given.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # uvicorn tells of each start and stop; its warnings and errors are what matters here.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
