"""The Kubernetes objects of a ModelDeployment: one module a kind, each with one `build`."""

from collections.abc import Iterable

from moorage_api.v1alpha1 import ModelDeployment
from moorage_operator.core.desired import deployment, service
from moorage_operator.core.desired.manifest import Defaults, Manifest


def build(resource: ModelDeployment, defaults: Defaults) -> Iterable[Manifest]:
    """Yield every object that a ModelDeployment should have, in the order of applying."""
    yield service.build(resource)
    yield deployment.build(resource, defaults)
