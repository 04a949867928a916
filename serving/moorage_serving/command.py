"""What the commands of all programs have in common: flags, announcements and complaints.

Standard output carries announcements that another program may wait for, one a line; logs and
complaints go to standard error.
"""

import sys
from typing import Final, NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsError

_SettingsT = TypeVar("_SettingsT", bound=BaseSettings)

#: Exit statuses of every program: failed, and wrong use.
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


def parse(kind: type[_SettingsT], arguments: list[str] | None = None) -> _SettingsT:
    """Read settings from flags, then environment variables; exit with 2 when they are wrong."""
    try:
        return CliApp.run(kind, cli_args=arguments)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            flag = "--" + ".".join(str(part) for part in item["loc"]).replace("_", "-")
            if item["type"] == "missing":
                complain(f"{flag} is required; see --help")
            else:
                complain(f"{flag}: {item['msg']}, got {item['input']!r}")
        raise SystemExit(EXIT_USAGE) from error
    except SettingsError as error:
        complain(str(error))
        raise SystemExit(EXIT_USAGE) from error


def announce(word: str, what: str) -> None:
    """Print a line such as `listening http://127.0.0.1:9000` at once."""
    print(word, what, flush=True)  # noqa: T201 - the contract with whoever started us


def complain(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def fail(line: str, status: int) -> NoReturn:
    """Complain and exit."""
    complain(line)
    raise SystemExit(status)
