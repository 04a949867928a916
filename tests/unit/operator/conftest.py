"""Resources for the tests of the operator's core."""

from collections.abc import Callable
from typing import Any

import pytest

from moorage_api import v1alpha1
from moorage_api.v1alpha1 import ModelDeployment

Make = Callable[..., ModelDeployment]


def _make(
    name: str = "iris",
    *,
    namespace: str = "default",
    uri: str = "file:/models/iris.onnx",
    version: str = "1",
    **spec: Any,
) -> ModelDeployment:
    return v1alpha1.load(
        {
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"model": {"uri": uri, "version": version}, **spec},
        }
    )


@pytest.fixture(scope="session")
def make() -> Make:
    """Make a ModelDeployment; further keywords are members of its spec, as the YAML has them."""
    return _make
