"""`moorage-runtime`: the command."""

import asyncio
import contextlib
import gc
import logging
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from moorage_api.errors import ModelRejected
from moorage_api.keys import EXIT_MODEL_REJECTED
from moorage_runtime import model
from moorage_runtime.app import RuntimeApp
from moorage_runtime.batching import Batcher
from moorage_runtime.model import LoadedModel, Source
from moorage_runtime.session import Options
from moorage_runtime.settings import Settings
from moorage_serving import command, logs, server

_log = logging.getLogger("moorage_runtime")

_OK: Final = 0


def main() -> None:
    """Run the command and exit: 0 good, 1 failed, 2 wrong use, 3 a model that cannot be served."""
    settings = command.parse(Settings)
    logs.configure(settings.log_level, settings.log_format)
    try:
        listener = server.bind(settings.host, settings.http_port)
    except server.PortInUse as error:
        command.fail(str(error), command.EXIT_FAILED)
    sys.exit(server.run(_serve(settings, listener)))


async def _serve(settings: Settings, listener: socket.socket) -> int:
    """Listen, load beside it, and serve until a signal or a model that cannot be served."""
    app = RuntimeApp(settings.name, settings.version, body_limit=settings.max_body_bytes)
    http = server.build(app, grace_s=settings.grace_s)
    command.announce("listening", server.address(listener))
    loading = asyncio.create_task(_load(settings, app, http))
    await http.serve(sockets=[listener])
    if not loading.done():
        # A download or load under way cannot be interrupted; it ends with the process.
        loading.cancel()
        return _OK
    return loading.result()


async def _load(settings: Settings, app: RuntimeApp, http: server.Server) -> int:
    def tell(what: str) -> None:
        app.waiting_for = what

    source = Source(settings.model, settings.version, settings.sha256, settings.registry)
    options = Options(settings.intra_op_threads, settings.inter_op_threads)
    try:
        loaded = await _in_daemon(
            lambda: model.load(source, options, warmup=settings.warmup, tell=tell)
        )
    except ModelRejected as error:
        http.stop()
        command.complain(f"{type(error).__name__}: {error}")
        return EXIT_MODEL_REJECTED
    except Exception:  # noqa: BLE001 - whatever it was, the process must say so and end
        http.stop()
        _log.exception("the model could not be loaded")
        return command.EXIT_FAILED
    batcher = Batcher(
        loaded.predictor,
        max_batch_size=settings.max_batch_size,
        max_delay_s=settings.max_delay_ms / 1000,
        shares=loaded.answers_rows,
        expected_s=loaded.expected_s,
    )
    app.serve(loaded, batcher)
    # What has been made until here lives as long as the process; the collector need not walk it.
    gc.collect()
    gc.freeze()
    command.announce("ready", f"{settings.name} {settings.version}")
    return _OK


async def _in_daemon(work: Callable[[], LoadedModel]) -> LoadedModel:
    """Await `work` in a thread that does not keep the process from ending, as a pool's would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[LoadedModel] = loop.create_future()

    def settle(settler: Callable[[Any], None], value: Any) -> None:
        if not done.done():
            settler(value)

    def run() -> None:
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = (done.set_result, work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            outcome = (done.set_exception, error)
        # The loop may have ended meanwhile; then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="moorage-load", daemon=True).start()
    return await done


if __name__ == "__main__":
    main()
