import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import specs

from moorage_api import manifests, v1alpha1
from moorage_api.errors import InvalidResource

HEAD = "apiVersion: moorage.dev/v1alpha1\nkind: ModelDeployment\n"


def yaml_of(name: str = "fraud", uri: str = "file:a.onnx") -> str:
    return f"{HEAD}metadata: {{name: {name}}}\nspec: {{model: {{uri: '{uri}'}}}}\n"


@pytest.mark.parametrize("case", specs.GOOD)
def test_what_is_rendered_is_read_back(case: str) -> None:
    resource = v1alpha1.load(specs.deployment(specs.GOOD[case]))
    assert manifests.parse(manifests.render(resource)) == [resource]


def test_what_is_rendered_holds_what_was_said_and_no_more() -> None:
    resource = v1alpha1.load(specs.deployment({"model": specs.MODEL, "replicas": 1}))
    assert manifests.render(resource) == (
        f"{HEAD}metadata:\n  name: fraud\nspec:\n  model:\n    uri: s3://models/fraud/3\n"
        "  replicas: 1\n"
    )


def test_several_documents_are_read_in_order_and_empty_ones_passed_over() -> None:
    text = f"---\n{yaml_of('b')}---\n---\n# nothing\n---\n{yaml_of('a')}"
    assert [item.metadata.name for item in manifests.parse(text)] == ["b", "a"]


def test_json_is_yaml() -> None:
    text = (
        '{"apiVersion": "moorage.dev/v1alpha1", "kind": "ModelDeployment", '
        '"metadata": {"name": "fraud"}, "spec": {"model": {"uri": "file:a.onnx"}}}'
    )
    assert manifests.parse(text) == manifests.parse(yaml_of())


def test_a_list_as_kubectl_prints_it_is_opened() -> None:
    text = "kind: List\napiVersion: v1\nitems:\n"
    for name in ("a", "b"):
        text += "- " + yaml_of(name).replace("\n", "\n  ").rstrip() + "\n"
    assert [item.metadata.name for item in manifests.parse(text)] == ["a", "b"]


def test_what_kubernetes_adds_to_metadata_and_status_is_read_over() -> None:
    text = yaml_of().replace(
        "{name: fraud}",
        "{name: fraud, uid: x, resourceVersion: '5', managedFields: [{manager: m}], generation: 4}",
    )
    (resource,) = manifests.parse(text + "status: {phase: Ready, later: true}\n")
    assert resource.metadata.generation == 4
    assert resource.status.phase == "Ready"


def test_every_problem_of_every_document_is_told() -> None:
    text = (
        f"{yaml_of('Bad')}---\nkind: Service\n---\n- a\n---\n{yaml_of(uri='x')}"
        f"---\n{HEAD}metadata: {{name: a}}\nspec: {{replicas: -1}}\n"
    )
    with pytest.raises(InvalidResource) as caught:
        manifests.parse(text, "f.yaml")
    assert caught.value.source == "f.yaml"
    assert [problem.field for problem in caught.value.problems] == [
        "metadata.name", "kind", "kind", "spec.model.uri", "spec.model", "spec.replicas",
    ]  # fmt: skip
    assert "kind: expected ModelDeployment, got 'Service'" in str(caught.value)
    assert "kind: expected ModelDeployment, got 'list'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "f.yaml: holds no ModelDeployment"),
        ("# nothing\n---\n", "f.yaml: holds no ModelDeployment"),
        ("kind: List\n", "holds no ModelDeployment"),
        ("kind: List\nitems: []\n", "holds no ModelDeployment"),
        ("kind: List\nitems: 5\n", "items: expected a list, got 5"),
        ("kind: List\nitems: {a: 1}\n", "items: expected a list"),
        ("a: [", "f.yaml: is not YAML: while parsing a flow node"),
        ("a: b: c", "is not YAML: mapping values are not allowed here"),
        ("\tkind: x", "is not YAML"),
        ("kind: a\nkind: b\n", "is not YAML: key 'kind' stands here twice"),
        ("a: {b: {c: 1, 'c': 2}}", "key 'c' stands here twice"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML: could not determine a construct"),
        ("a: !!timestamp foo", "is not YAML"),
        ("a: !!int ''", "is not YAML"),
        ("a: !!int x", "is not YAML"),
        ("a: !!bool foo", "is not YAML"),
        ("a: !!float foo", "is not YAML"),
        ("a: 2024-13-45", "is not YAML"),
        ("? [a]\n: b", "is not YAML"),
        ("a: \0", "is not YAML"),
        ("a: *b", "is not YAML: found undefined alias"),
        ("&a [*a]", "is not YAML"),
        ("[" * 500, "is not YAML"),
        ("{a: " * 5000, "is not YAML"),
        ("- " * 20000, "is not YAML"),
        ("5", "kind: expected ModelDeployment, got 'int'"),
        ("kind: [ModelDeployment]", "kind: expected ModelDeployment, got ['ModelDeployment']"),
        ("x" * 1_500_001, "f.yaml: is longer than 1500000 characters"),
        (yaml_of() + "more: 1\n", "more: is not a field of this resource"),
        (yaml_of().replace("v1alpha1", "v1"), "apiVersion: "),
        (HEAD, "metadata: is required; spec: is required"),
        (yaml_of().replace("fraud", "2024"), "metadata.name: expected a string; put it in quotes"),
    ],
    ids=lambda text: str(text)[:40],
)
def test_a_text_that_is_no_deployment_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidResource, match=re.escape(words)) as caught:
        manifests.parse(text, "f.yaml")
    assert len(str(caught.value)) < 1000


def test_a_small_text_cannot_be_blown_up_by_aliases() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{at}: &a{at} [" + ", ".join([f"*a{at - 1}"] * 10) + "]" for at in range(1, 10)]
    bomb = "\n".join(lines)
    spec = yaml_of().replace("{model:", "{" + ", ".join(lines) + ", model:")
    for text in (bomb, yaml_of() + bomb, spec, spec.replace("a9:", "replicas:")):
        with pytest.raises(InvalidResource, match="its aliases stand for more than"):
            manifests.parse(text)


def test_what_holds_itself_is_refused() -> None:
    text = yaml_of().replace("{model:", "{x: &x {y: *x}, model:")
    with pytest.raises(InvalidResource, match="its aliases stand for more than"):
        manifests.parse(text)


def test_an_alias_may_repeat_what_was_said() -> None:
    text = yaml_of() + "---\n" + HEAD + "metadata: {name: &n other, labels: {app: *n}}\n"
    _, other = manifests.parse(text + "spec: {model: {uri: 'file:b'}}\n")
    assert other.metadata.labels == {"app": "other"}


@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(
            ["kind: ", "List", "ModelDeployment\n", "items: ", "[", "]", "{", "}", ", ", "- ", "\n",
             "  ", "&a ", "*a ", "!!int ", "!!timestamp ", "!!set ", "!!pairs ", "!!binary ", "? ",
             ": ", "a", "1", "null", "---\n", "<<: ", "'", '"', "|\n", "2024-01-01", ".inf", "0b",
             "1:2"]
        ),
        max_size=12,
    ).map("".join)
)  # fmt: skip
def test_any_text_gives_deployments_or_a_sentence(text: str) -> None:
    with contextlib.suppress(InvalidResource):
        assert manifests.parse(text)
