"""The Service: `http://NAME.NAMESPACE.svc` reaches the runtimes."""

from moorage_api.v1alpha1 import ModelDeployment
from moorage_operator.core.desired import manifest
from moorage_operator.core.desired.manifest import Manifest


def build(resource: ModelDeployment) -> Manifest:
    """Return the Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": manifest.metadata(resource),
        "spec": {
            "selector": manifest.selector(resource),
            "ports": [
                {
                    "name": "http",
                    "port": 80,
                    "targetPort": "http",
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }
