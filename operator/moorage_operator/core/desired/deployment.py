"""The Deployment: pods that run the runtime, under the restricted Pod Security Standard."""

from typing import Any, Final

from moorage_api import keys
from moorage_api.v1alpha1 import ModelDeployment
from moorage_operator.core import runtime_flags
from moorage_operator.core.desired import manifest
from moorage_operator.core.desired.manifest import HTTP_PORT, Defaults, Manifest

#: Requests under way get the runtime's 30 s after SIGTERM, and some to spare.
_GRACE_S: Final = 45
#: A model has half an hour to be fetched and loaded before the pod counts as hung.
_STARTUP_PERIOD_S: Final = 5
_STARTUP_FAILURES: Final = 360
#: Any id but root's; the images have no user of this number and need none.
_USER: Final = 65532


def build(resource: ModelDeployment, defaults: Defaults) -> Manifest:
    """Return the Deployment."""
    spec = resource.spec
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": manifest.metadata(resource),
        "spec": {
            "replicas": 0 if spec.stopped else spec.replicas,
            "selector": {"matchLabels": manifest.selector(resource)},
            # The pods before it go on serving until a new one has answered a probe.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": {"labels": manifest.labels(resource)},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": _GRACE_S,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": _USER,
                        "runAsGroup": _USER,
                        "fsGroup": _USER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [_container(resource, defaults)],
                    # Downloads pass through here; the root file system is read-only.
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
        },
    }


def _container(resource: ModelDeployment, defaults: Defaults) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "runtime",
        "image": defaults.image,
        "args": [
            *runtime_flags.build(resource),
            "--host",
            "0.0.0.0",  # noqa: S104 - a pod's own network namespace
            "--http-port",
            str(HTTP_PORT),
        ],
        "ports": [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        "startupProbe": {
            "httpGet": {"path": "/v2/health/ready", "port": "http"},
            "periodSeconds": _STARTUP_PERIOD_S,
            "failureThreshold": _STARTUP_FAILURES,
        },
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": "http"}},
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "failureThreshold": 6,
        },
        # The runtime's last line names the reason why a model cannot be served.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - an emptyDir
    }
    if defaults.registry:
        container["env"] = [{"name": keys.ENV_REGISTRY, "value": defaults.registry}]
    resources = {
        kind: {name: str(value) for name, value in quantities.items()}
        for kind, quantities in (
            ("requests", resource.spec.resources.requests),
            ("limits", resource.spec.resources.limits),
        )
        if quantities
    }
    return container | {"resources": resources} if resources else container
