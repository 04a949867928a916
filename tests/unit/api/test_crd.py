import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.support import admission, specs

from moorage_api import crd, v1alpha1
from moorage_api.errors import InvalidResource

CRD = crd.build()
VERSION = CRD["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from schemas(inner, f"{path}.{name}")
    if "items" in schema:
        yield from schemas(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from schemas(schema["additionalProperties"], f"{path}.*")


ALL = dict(schemas(ROOT))


@pytest.mark.parametrize("case", specs.GOOD)
def test_both_doors_let_a_good_spec_in(case: str) -> None:
    document = specs.deployment(specs.GOOD[case])
    complaints, _ = admission.admit(document, CRD)
    assert complaints == []
    v1alpha1.load(document)


@pytest.mark.parametrize("case", specs.GOOD)
def test_both_doors_fill_in_the_same_defaults(case: str) -> None:
    document = specs.deployment(specs.GOOD[case])
    _, stored = admission.admit(document, CRD)
    resource = v1alpha1.load(document)
    assert resource.spec.model_dump(by_alias=True, exclude_none=True) == stored["spec"]
    assert v1alpha1.load(stored).spec == resource.spec


@pytest.mark.parametrize("case", specs.BAD)
def test_both_doors_refuse_a_bad_spec(case: str) -> None:
    spec, words = specs.BAD[case]
    document = specs.deployment(spec)
    with pytest.raises(InvalidResource, match=re.escape(words)):
        v1alpha1.load(document)
    complaints, _ = admission.admit(document, CRD)
    assert complaints


@pytest.mark.parametrize("case", specs.GOOD_NAMES)
def test_both_doors_let_a_good_name_in(case: str) -> None:
    document = specs.deployment({"model": specs.MODEL}, specs.GOOD_NAMES[case])
    assert v1alpha1.load(document).metadata.name == specs.GOOD_NAMES[case]
    assert admission.admit(document, CRD)[0] == []


@pytest.mark.parametrize("case", specs.BAD_NAMES)
def test_both_doors_refuse_a_bad_name(case: str) -> None:
    document = specs.deployment({"model": specs.MODEL}, specs.BAD_NAMES[case])
    with pytest.raises(InvalidResource, match=r"metadata\.name: "):
        v1alpha1.load(document)
    (complaint,) = admission.admit(document, CRD)[0]
    assert complaint.startswith("metadata.name: expected at most 63 lower-case letters")


def test_both_doors_say_the_same_of_a_broken_rule() -> None:
    for case in ("a delay for a batch of one", "a request above its limit"):
        spec, _ = specs.BAD[case]
        (complaint,) = admission.admit(specs.deployment(spec), CRD)[0]
        with pytest.raises(InvalidResource, match=re.escape(complaint)):
            v1alpha1.load(specs.deployment(spec))


def test_every_rule_of_the_types_stands_in_the_crd() -> None:
    def rules_of(kind: type[v1alpha1.Spec]) -> Iterator[str]:
        yield from (cel for cel, _, _ in kind.rules)
        for inner in kind.__subclasses__():
            yield from rules_of(inner)

    in_crd = [rule["rule"] for item in ALL.values() for rule in _validations(item)]
    assert sorted(rules_of(v1alpha1.Spec)) == sorted(
        rule for rule in in_crd if "self.metadata" not in rule
    )
    assert len(in_crd) == 4


def _validations(schema: dict[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = schema.get("x-kubernetes-validations", [])
    return found


def test_every_rule_is_broken_by_some_bad_spec() -> None:
    bad = [specs.deployment(spec) for spec, _ in specs.BAD.values()]
    bad += [specs.deployment({"model": specs.MODEL}, name) for name in specs.BAD_NAMES.values()]
    broken = {complaint for document in bad for complaint in admission.admit(document, CRD)[0]}
    messages = {rule["message"] for item in ALL.values() for rule in _validations(item)}
    assert messages <= broken


@pytest.mark.parametrize("path", ALL)
def test_the_schema_is_structural(path: str) -> None:
    schema = ALL[path]
    # "Specifying a structural schema": a type, or int-or-string, for every value.
    assert ("type" in schema) != bool(schema.get("x-kubernetes-int-or-string")), "no type"
    assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "title", "const"} & set(schema)
    # The two exclude each other.
    assert not {"properties", "additionalProperties"} <= set(schema)
    assert not isinstance(schema.get("additionalProperties"), bool)
    assert not isinstance(schema.get("exclusiveMinimum"), int)
    if schema.get("type") == "object" and path != ".metadata":
        assert "properties" in schema or "additionalProperties" in schema
    if schema.get("type") == "array":
        assert "items" in schema


@pytest.mark.parametrize("path", [path for path in ALL if path.startswith(".spec.")])
def test_every_field_of_the_spec_is_described(path: str) -> None:
    if not path.endswith(".*"):
        assert len(ALL[path].get("description", "")) > 10


def test_a_default_is_whole_and_obeys_its_own_schema() -> None:
    defaults = {path: item for path, item in ALL.items() if "default" in item}
    assert ".spec.runtime.batching" in defaults
    for path, schema in defaults.items():
        value = schema["default"]
        assert admission.fill(value, schema) == value, path
        assert list(admission.Validator(schema).iter_errors(value)) == [], path


def test_the_status_has_no_defaults() -> None:
    assert [path for path in ALL if path.startswith(".status") and "default" in ALL[path]] == []


def test_lists_of_the_status_are_keyed_so_that_each_writer_owns_its_own() -> None:
    for name, key in (("conditions", "type"), ("variants", "name")):
        schema = ALL[f".status.{name}"]
        assert schema["x-kubernetes-list-type"] == "map"
        assert schema["x-kubernetes-list-map-keys"] == [key]
        # The API server wants the key of a keyed list required.
        assert key in schema["items"]["required"]


def test_kubectl_finds_it_under_its_short_name_and_in_all() -> None:
    names = CRD["spec"]["names"]
    assert names["shortNames"] == ["mdep"]
    assert names["categories"] == ["all"]
    assert CRD["metadata"]["name"] == f"{names['plural']}.{CRD['spec']['group']}"
    assert CRD["spec"]["scope"] == "Namespaced"


def test_it_has_a_status_and_a_scale_subresource_over_fields_that_exist() -> None:
    assert VERSION["subresources"]["status"] == {}
    scale = VERSION["subresources"]["scale"]
    assert set(scale) == {"specReplicasPath", "statusReplicasPath", "labelSelectorPath"}
    assert ALL[scale["specReplicasPath"]]["type"] == "integer"
    assert ALL[scale["statusReplicasPath"]]["type"] == "integer"
    assert ALL[scale["labelSelectorPath"]]["type"] == "string"


def test_printer_columns_show_fields_that_exist() -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert [column["name"] for column in columns if "priority" not in column] == [
        "Ready", "Replicas", "Version", "Reason", "Age",
    ]  # fmt: skip
    assert [column["name"] for column in columns if column.get("priority")] == ["URL", "Endpoint"]
    for column in columns:
        path = re.sub(r"\[\?\(@\.type=='Ready'\)\]", "[]", column["jsonPath"])
        if path != ".metadata.creationTimestamp":
            assert ALL[path]["type"] == column["type"]


def test_the_rendered_file_is_the_crd_and_says_where_it_comes_from() -> None:
    text = crd.render()
    assert text.startswith("# Generated by `make generate`")
    assert yaml.safe_load(text) == CRD


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "exclusiveMinimum": 0},
        {"type": "array", "uniqueItems": True},
        {"type": "array", "prefixItems": []},
        {"type": "number", "multipleOf": 2},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    ],
    ids=lambda schema: next(key for key in schema if key != "type"),
)
def test_a_keyword_without_a_structural_form_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="structural"):
        crd.structural({"type": "object", "properties": {"x": schema}})
