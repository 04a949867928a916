"""What all objects have in common: names, labels, and what differs between clusters."""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from moorage_api import __version__, keys, names
from moorage_api.v1alpha1 import ModelDeployment

#: A Kubernetes object as a plain document that holds only the fields that we own.
Manifest: TypeAlias = dict[str, Any]

#: The variant of a deployment that is not a canary's or shadow's.
STABLE: Final = "stable"
HTTP_PORT: Final = 9000


@dataclass(frozen=True, slots=True)
class Defaults:
    """What differs between clusters.

    Parameters
    ----------
    image
        Of the runtime.
    registry
        URL of the gateway that has `models:/NAME/VERSION`; empty where there is none.
    """

    image: str = f"moorage-runtime:{__version__}"
    registry: str = ""


def object_name(resource: ModelDeployment) -> str:
    """Return the name of the resource's Deployment and Service."""
    return names.label(resource.metadata.name)


def selector(resource: ModelDeployment) -> dict[str, str]:
    """Return the labels by which pods are found; nothing in the spec changes them."""
    return {
        keys.LABEL_NAME: "moorage-runtime",
        keys.LABEL_INSTANCE: resource.metadata.name,
        keys.LABEL_VARIANT: STABLE,
    }


def metadata(resource: ModelDeployment) -> dict[str, Any]:
    """Return the metadata of an object of the resource."""
    return {
        "name": object_name(resource),
        "namespace": resource.metadata.namespace,
        "labels": labels(resource),
    }


def labels(resource: ModelDeployment) -> dict[str, str]:
    """Return the standard labels."""
    return {
        **selector(resource),
        keys.LABEL_COMPONENT: "runtime",
        keys.LABEL_VERSION: resource.model_version,
        keys.LABEL_MANAGED_BY: keys.FIELD_MANAGER,
    }
