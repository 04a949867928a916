"""What the routes work with, handed to them by the one place that wires everything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from moorage_gateway.deployer import Deployer
from moorage_gateway.live import LiveTable
from moorage_gateway.prediction_log import PredictionStore
from moorage_gateway.registry import Registry
from moorage_serving.metrics import Collector


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running gateway.

    Parameters
    ----------
    live
        The routes as they are now.
    deployer
        Deploys and undeploys.
    registry
        The stored models.
    store
        The stored predictions.
    log_trouble
        Returns why predictions cannot be stored now; empty while all is well.
    collectors
        What `/metrics` shows.
    now
        Returns the time: aware, UTC.
    """

    live: LiveTable
    deployer: Deployer
    registry: Registry
    store: PredictionStore
    log_trouble: Callable[[], str]
    collectors: Callable[[], Sequence[Collector]]
    now: Callable[[], datetime]


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Parts = Annotated[Services, Depends(_services)]
