"""A folder of deployments: what stands for the API server where there is no cluster.

::

    payments.fraud.yaml          what is asked for: one ModelDeployment
    payments.fraud.status.json   what is seen: written by whoever runs the model, and by nobody else

`moorage up` and the gateway's `POST /deployments` write the first, the supervisor of `moorage up`
writes the second, the gateway reads both. A status names the very spec that it speaks of by its
digest, as `observedGeneration` does in a cluster. This module knows the names and the formats;
reading and writing files is the callers' business.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import ValidationError

from moorage_api import v1alpha1
from moorage_api.errors import InvalidBody
from moorage_api.names import Qualified
from moorage_api.v1alpha1 import ModelDeployment, ModelDeploymentStatus

YAML_SUFFIXES: Final = (".yaml", ".yml")
STATUS_SUFFIX: Final = ".status.json"


@dataclass(frozen=True, slots=True)
class Observed:
    """What a status file says.

    Parameters
    ----------
    digest
        Of the spec that the status speaks of: `digest(resource)`.
    addresses
        Base URLs of the runtimes that answer now.
    status
        As in the resource.
    """

    digest: str
    addresses: tuple[str, ...]
    status: ModelDeploymentStatus


def file_name(key: Qualified) -> str:
    """Return the name of the file with what is asked for."""
    return f"{key.namespace}.{key.name}.yaml"


def status_name(key: Qualified) -> str:
    """Return the name of the file with what is seen."""
    return f"{key.namespace}.{key.name}{STATUS_SUFFIX}"


def digest(resource: ModelDeployment) -> str:
    """Return a digest of the resource's spec, defaults included."""
    document = resource.spec.model_dump(mode="json", by_alias=True)
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def render_status(observed: Observed) -> bytes:
    """Return the content of a status file."""
    document = {
        "spec": observed.digest,
        "addresses": list(observed.addresses),
        "status": observed.status.model_dump(mode="json", by_alias=True),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def parse_status(text: bytes) -> Observed:
    """Read the content of a status file.

    Raises
    ------
    InvalidBody
        When it is not one.
    """
    try:
        document: Any = orjson.loads(text)
        if not isinstance(document["addresses"], list):
            raise TypeError("addresses: expected a list")
        return Observed(
            str(document["spec"]),
            tuple(str(address) for address in document["addresses"]),
            v1alpha1.ModelDeploymentStatus.model_validate(document["status"]),
        )
    except (orjson.JSONDecodeError, ValidationError, KeyError, TypeError) as error:
        raise InvalidBody(f"not a status file: {error}") from error
