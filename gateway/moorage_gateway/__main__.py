"""`moorage-gateway`: the command, and the one place where the parts are put together."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from moorage_api.errors import MoorageError
from moorage_gateway import app, store
from moorage_gateway.backends import HttpBackends
from moorage_gateway.deployer import Deployer
from moorage_gateway.folder_store import FolderStore
from moorage_gateway.http.services import Services
from moorage_gateway.inference import Inference
from moorage_gateway.live import LiveTable
from moorage_gateway.log_buffer import BufferedLog
from moorage_gateway.prediction_log import PredictionStore
from moorage_gateway.registry import Registry
from moorage_gateway.settings import Settings
from moorage_gateway.usage import Usage
from moorage_serving import command, logs, server

#: How long the last predictions get to be stored after the last answer, in seconds.
FLUSH_S: Final = 10.0


def main() -> None:
    """Run the command and exit: 0 good, 1 failed, 2 wrong use."""
    settings = command.parse(Settings)
    logs.configure(settings.log_level, settings.log_format)
    try:
        database = settings.database or f"sqlite:///{settings.data / 'predictions.db'}"
        predictions = store.connect(database)
    except MoorageError as error:
        command.fail(f"--database: {error}", command.EXIT_USAGE)
    try:
        listener = server.bind(settings.host, settings.port)
    except server.PortInUse as error:
        command.fail(str(error), command.EXIT_FAILED)
    server.run(_serve(settings, predictions, listener))
    sys.exit()


async def _serve(settings: Settings, predictions: PredictionStore, listener: socket.socket) -> None:
    resources = FolderStore(settings.routes or settings.data / "deployments")
    backends = HttpBackends(settings.runtime_timeout_s, body_limit=settings.max_body_bytes)
    usage = Usage()
    live = LiveTable(resources, backends, usage)
    registry = Registry(settings.data / "models", max_bytes=settings.max_model_bytes)
    loop = asyncio.get_running_loop()

    def tell(trouble: str) -> None:
        # In the loop, so that no announcement comes into the middle of another; the log's thread
        # may outlive it.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_announce, "log", trouble or "ok")

    log = BufferedLog(predictions, on_trouble=tell)
    deployer = Deployer(resources, registry, live, wait_s=settings.deploy_timeout_s)
    inference = Inference(
        lambda: live.table, backends, log, usage, body_limit=settings.max_body_bytes
    )
    services = Services(
        live=live,
        deployer=deployer,
        registry=registry,
        store=predictions,
        log_trouble=lambda: log.trouble,
        collectors=lambda: [usage.latency, *log.collectors()],
        now=lambda: datetime.now(UTC),  # noqa: TID251 - the clock is asked here and nowhere below
    )

    async def lifespan() -> AsyncIterator[None]:
        log.start()
        watch = asyncio.create_task(resources.run())
        command.announce("listening", server.address(listener))
        yield
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        backends.close()
        lost = await asyncio.to_thread(log.close, FLUSH_S)
        if lost:
            _announce("lost", str(lost))
        predictions.close()

    http = server.build(app.build(inference, services, lifespan), grace_s=settings.grace_s)
    await http.serve(sockets=[listener])


def _announce(word: str, what: str) -> None:
    # Whoever started us may have ended before us.
    with suppress(BrokenPipeError):
        command.announce(word, what)


if __name__ == "__main__":
    main()
