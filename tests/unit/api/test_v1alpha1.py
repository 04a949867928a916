from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.support import admission, specs

from moorage_api import v1alpha1
from moorage_api.errors import InvalidResource, Problem
from moorage_api.v1alpha1 import Batching, ModelDeploymentStatus


def load(spec: Any = None, name: str = "fraud", **more: Any) -> v1alpha1.ModelDeployment:
    document = specs.deployment({"model": specs.MODEL} if spec is None else spec, name)
    return v1alpha1.load(document | more)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", "2"),
        (2, "2"),
        ("500m", "0.5"),
        ("1Gi", "1073741824"),
        ("1.5G", "1500000000"),
        ("1E", "1e18"),
        ("1E3", "1000"),
        ("1e-3", "0.001"),
        (".5k", "500"),
        ("5.", "5"),
        ("0.1n", "1e-9"),
        ("9999E", str(2**63 - 1)),
    ],
)
def test_a_quantity_is_a_number(text: Any, number: str) -> None:
    assert v1alpha1.parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1 ", "1\n", "1K", "1e", "1.2.3", "x", "1ki", "٣"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a quantity such as 2, 500m or 1Gi"):
        v1alpha1.parse_quantity(text)


@given(st.from_regex(v1alpha1.QUANTITY_PATTERN.replace("$", r"\Z"), fullmatch=True))
def test_quantities_are_what_the_api_server_reads(text: str) -> None:
    if text.isascii():
        assert v1alpha1.parse_quantity(text) == admission.quantity(text)


@pytest.mark.parametrize(
    ("spec", "name", "version"),
    [
        ({"model": {"uri": "file:a.onnx"}}, "fraud", "1"),
        ({"model": {"uri": "file:a.onnx", "version": "7"}}, "fraud", "7"),
        ({"model": {"uri": "models:/churn/3"}}, "churn", "3"),
        ({"model": {"uri": "models:/churn/3", "version": "3"}}, "churn", "3"),
    ],
    ids=str,
)
def test_a_models_name_and_version_come_from_the_registry_where_it_does(
    spec: Any, name: str, version: str
) -> None:
    resource = load(spec)
    assert (resource.model_name, resource.model_version) == (name, version)


@pytest.mark.parametrize("case", specs.GOOD)
def test_every_good_spec_has_a_model_name_and_version(case: str) -> None:
    resource = load(specs.GOOD[case])
    assert resource.model_name
    assert resource.model_version


def test_the_endpoint_is_the_name_unless_it_is_said() -> None:
    assert load().endpoint == "fraud"
    assert load({"model": specs.MODEL, "endpoint": "fraud_prod"}).endpoint == "fraud_prod"


def test_a_deployment_is_known_by_namespace_and_name() -> None:
    assert str(load().key) == "default/fraud"
    assert str(load(metadata={"name": "fraud", "namespace": "payments"}).key) == "payments/fraud"


@pytest.mark.parametrize("namespace", ["", "A", "a.b", "a/b", "../x", "a\n", "a" * 64], ids=repr)
def test_a_namespace_that_kubernetes_has_not_is_refused(namespace: str) -> None:
    with pytest.raises(InvalidResource, match=r"metadata\.namespace"):
        load(metadata={"name": "fraud", "namespace": namespace})


def test_every_problem_is_told_in_the_words_of_the_document() -> None:
    with pytest.raises(InvalidResource) as caught:
        load({"model": {"uri": 5}, "runtime": {"batching": {"maxBatchSize": 0}}, "x": 1})
    assert [problem.field for problem in caught.value.problems] == [
        "spec.model.uri", "spec.runtime.batching.maxBatchSize", "spec.x",
    ]  # fmt: skip
    assert caught.value.source == ""


def test_a_resource_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().spec.replicas = 2  # type: ignore[misc]


def test_python_spells_fields_in_its_own_way_and_obeys_the_rules() -> None:
    assert Batching(max_batch_size=8, max_delay_ms=5).max_delay_ms == 5
    with pytest.raises(ValidationError, match="it needs maxBatchSize above 1"):
        Batching(max_batch_size=1, max_delay_ms=5)


@pytest.mark.parametrize("document", [None, 5, "x", [], {}, {"spec": 5}, {"spec": None}], ids=str)
def test_what_is_no_resource_is_refused(document: Any) -> None:
    with pytest.raises(InvalidResource):
        v1alpha1.load(document)


@pytest.mark.parametrize("depth", [50, 1000, 100_000])
def test_a_document_nested_deeply_is_refused(depth: int) -> None:
    deep: Any = {}
    for _ in range(depth):
        deep = {"a": deep}
    with pytest.raises(InvalidResource):
        load({"model": deep})


def test_a_dump_is_what_was_said() -> None:
    document = specs.deployment(specs.GOOD["everything said"])
    document["metadata"] |= {"labels": {"app": "x"}, "annotations": {"a": "b"}, "generation": 5}
    document["status"] = {"phase": "Ready"}
    dumped = v1alpha1.dump(v1alpha1.load(document))
    assert dumped["spec"] == document["spec"]
    assert dumped["metadata"] == {
        "name": "fraud", "labels": {"app": "x"}, "annotations": {"a": "b"},
    }  # fmt: skip
    assert "status" not in dumped


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "uri", "replicas", "resources", "requests", "cpu", "x"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_any_spec_is_a_resource_or_a_list_of_problems(spec: Any) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        load(spec)
    except InvalidResource as error:
        problems = error.problems
    assert all(problem.field.startswith("spec") for problem in problems)


def test_a_condition_is_found_by_its_type() -> None:
    status = ModelDeploymentStatus.model_validate(
        {
            "conditions": [
                {
                    "type": "Ready",
                    "status": "False",
                    "reason": "Loading",
                    "message": "",
                    "lastTransitionTime": "2026-01-02T03:04:05Z",
                }
            ]
        }
    )
    ready = status.condition("Ready")
    assert ready is not None
    assert ready.reason == "Loading"
    assert status.condition("Stopped") is None
