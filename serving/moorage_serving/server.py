"""Runs an ASGI application: one socket, one loop, a graceful end."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import uvicorn

from moorage_serving.http_protocol import OneWriteProtocol

#: A connection that is idle this long is closed. It outlasts what clients keep idle connections
#: for (the gateway 30 s), so that the server is not the one to hang up on a request.
KEEP_ALIVE_S: Final = 75
#: After SIGTERM, answers under way get this long.
GRACE_S: Final = 30

_log = logging.getLogger(__name__)


class PortInUse(OSError):
    """The address is taken, or may not be used."""


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Parameters
    ----------
    host
        Address to listen on.
    port
        0 takes a free one.

    Raises
    ------
    PortInUse
        When the address cannot be had; the message names it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise PortInUse(f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def address(listener: socket.socket) -> str:
    """Return `http://HOST:PORT` of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn's server, which ends with status 0 after a signal asked it to end."""

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Begin the graceful end; a second Ctrl-C ends at once."""
        # uvicorn raises the signal again when it is done; a clean end should look like one. SIGTERM
        # may come several times: the kernel sends one for each thread of a parent that dies.
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    def stop(self) -> None:
        """End as after a signal."""
        self.should_exit = True


def build(app: Callable[..., Any], *, grace_s: int = GRACE_S) -> Server:
    """Return a server for `app`; `await server.serve(sockets=[…])` runs it until it is stopped."""
    return Server(
        uvicorn.Config(
            app,
            http=OneWriteProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=grace_s,
        )
    )


def run(main: Any) -> Any:
    """Run a coroutine to its end on uvloop's event loop where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows has no uvloop.
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
