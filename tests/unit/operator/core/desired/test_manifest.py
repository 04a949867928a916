"""Names and labels: laws for every resource."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api import names
from moorage_api.v1alpha1 import ModelDeployment
from moorage_operator.core import desired
from moorage_operator.core.desired import manifest
from moorage_operator.core.desired.manifest import Defaults, Manifest

LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")

deployment_names = st.from_regex(names.DEPLOYMENT_PATTERN, fullmatch=True).filter(
    lambda name: len(name) <= names.LABEL_MAX
)
segments = st.from_regex(names.SEGMENT_PATTERN, fullmatch=True).filter(
    lambda name: len(name) <= names.LABEL_MAX
)
specs = st.fixed_dictionaries(
    {"version": segments},
    optional={
        "replicas": st.integers(0, 1000),
        "endpoint": segments,
        "stopped": st.booleans(),
        "resources": st.fixed_dictionaries(
            {}, optional={"limits": st.fixed_dictionaries({"cpu": st.integers(1, 64)})}
        ),
        "runtime": st.fixed_dictionaries(
            {},
            optional={
                "warmup": st.booleans(),
                "batching": st.fixed_dictionaries({"maxBatchSize": st.integers(1, 65536)}),
            },
        ),
    },
)


@pytest.fixture(scope="module")
def build(make: Callable[..., ModelDeployment]) -> Callable[..., list[Manifest]]:
    """Build every object of a resource."""

    def built(*args: Any, **kwargs: Any) -> list[Manifest]:
        return list(desired.build(make(*args, **kwargs), Defaults()))

    return built


@given(name=deployment_names, spec=specs)
def test_building_twice_builds_the_same(
    build: Callable[..., list[Manifest]], name: str, spec: dict[str, Any]
) -> None:
    assert build(name, **spec) == build(name, **spec)


@given(name=deployment_names, one=specs, other=specs)
def test_selectors_and_names_never_depend_on_the_spec(
    build: Callable[..., list[Manifest]], name: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    def immutable(objects: list[Manifest]) -> list[Any]:
        return [
            (item["kind"], item["metadata"]["name"], item["spec"]["selector"]) for item in objects
        ]

    assert immutable(build(name, **one)) == immutable(build(name, **other))


@given(name=deployment_names, spec=specs)
def test_the_selectors_find_exactly_the_pods_of_the_resource(
    build: Callable[..., list[Manifest]], name: str, spec: dict[str, Any]
) -> None:
    service, deployment = build(name, **spec)
    pods = deployment["spec"]["template"]["metadata"]["labels"]
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"] == selector
    assert selector.items() <= pods.items()
    other = build(f"{name[:50]}-other", **spec)[1]["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= other.items()


@given(name=deployment_names, spec=specs)
def test_every_label_is_one_that_kubernetes_takes(
    build: Callable[..., list[Manifest]], name: str, spec: dict[str, Any]
) -> None:
    for item in build(name, **spec):
        for value in item["metadata"]["labels"].values():
            assert LABEL_VALUE.fullmatch(value), value


@given(
    head=st.from_regex(r"[a-z][a-z0-9]{62}", fullmatch=True),
    tails=st.lists(st.from_regex(r"[a-z0-9]{1,30}", fullmatch=True), min_size=2, unique=True),
)
def test_long_names_are_hashed_and_stay_different(
    make: Callable[..., ModelDeployment], head: str, tails: list[str]
) -> None:
    # The resource itself takes no such name; a variant's suffix will make one.
    resource = make()

    def named(tail: str) -> str:
        metadata = resource.metadata.model_copy(update={"name": head + tail})
        return manifest.object_name(resource.model_copy(update={"metadata": metadata}))

    found = [named(tail) for tail in tails]
    assert len(set(found)) == len(tails)
    for name in found:
        assert len(name) <= names.LABEL_MAX
        assert re.fullmatch(names.DEPLOYMENT_PATTERN, name)


@given(name=deployment_names)
def test_a_name_that_fits_is_kept(make: Callable[..., ModelDeployment], name: str) -> None:
    assert manifest.object_name(make(name)) == name


def test_objects_lie_in_the_namespace_of_the_resource(
    build: Callable[..., list[Manifest]],
) -> None:
    found = {item["metadata"]["namespace"] for item in build("fraud", namespace="payments")}
    assert found == {"payments"}
