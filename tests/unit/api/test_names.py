import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moorage_api import names
from moorage_api.errors import InvalidName

LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
ANY = st.text(max_size=90)


@pytest.mark.parametrize("value", ["a", "A1", "a.b", "a_b", "a-b", "0", "2024-01.rc_1", "x" * 63])
def test_a_segment_is_taken_as_it_is(value: str) -> None:
    assert names.segment(value, "model name") == value


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "-a", "a-", ".a", "a.", "_", "a/b", "a\\b", "a b", "a\n", "\na", "é", "a%2e",
     "a\0", "٣", "x" * 64],
    ids=repr,
)  # fmt: skip
def test_what_could_twist_a_path_is_no_segment(value: str) -> None:
    with pytest.raises(InvalidName, match=r"model name .*: expected 1 to 63 letters"):
        names.segment(value, "model name")


@given(ANY)
def test_a_segment_stays_one_segment_of_a_path(value: str) -> None:
    try:
        names.segment(value, "x")
    except InvalidName:
        return
    assert value.isascii()
    assert value not in (".", "..")
    assert not set(value) & set("/\\% \n\0?#:")


def test_a_short_label_is_its_parts() -> None:
    assert names.label("fraud") == "fraud"
    assert names.label("fraud", "canary") == "fraud-canary"
    assert names.label("a" * 63) == "a" * 63


@given(st.lists(st.from_regex(LABEL, fullmatch=True), min_size=1, max_size=3))
def test_a_label_fits_and_stays_a_label(parts: list[str]) -> None:
    assert len(names.label(*parts)) <= 63
    assert LABEL.fullmatch(names.label(*parts))


def test_long_names_that_differ_anywhere_stay_different() -> None:
    long = ["a" * 64, "a" * 65, "a" * 63 + "b", "b" + "a" * 63, "a" * 30 + "-" + "a" * 40]
    assert len({names.label(name) for name in long}) == len(long)
    assert len({names.label(name, "canary") for name in long}) == len(long)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("iris",), "iris"),
        (("iris", "2"), "iris-2"),
        (("binary_classifier", "1"), "binary-classifier-1"),
    ],
)
def test_a_deployments_name_is_readable(parts: tuple[str, ...], expected: str) -> None:
    assert names.deployment_name(*parts) == expected


@given(ANY, ANY)
def test_any_names_make_a_deployments_name(model: str, version: str) -> None:
    made = names.deployment_name(model, version)
    assert re.fullmatch(names.DEPLOYMENT_PATTERN.strip("^$"), made)
    assert len(made) <= names.LABEL_MAX
    assert made == names.deployment_name(model, version)


@given(ANY, ANY)
def test_names_meet_only_by_underscores(left: str, right: str) -> None:
    assume(left.replace("_", "-") != right.replace("_", "-"))
    assert names.deployment_name(left) != names.deployment_name(right)


def test_names_that_differ_by_case_or_a_dot_stay_different() -> None:
    variants = ["Fraud", "fraud", "fraud.", "FRAUD", ".fraud", "fra.ud", "fra-ud", "1fraud", ""]
    assert len({names.deployment_name(name) for name in variants}) == len(variants)


def test_versions_are_ordered_as_people_count() -> None:
    ordered = [
        "1",
        "2",
        "10",
        "10.1",
        "10.2",
        "10.10",
        "11",
        "2024-01",
        "2024-02",
        "rc1",
        "v2",
        "v10",
    ]
    assert sorted(reversed(ordered), key=names.version_key) == ordered


@given(ANY, ANY)
def test_any_two_versions_can_be_compared(left: str, right: str) -> None:
    a, b = names.version_key(left), names.version_key(right)
    assert (a < b) + (b < a) + (a == b) == 1


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("models:/fraud/3", ("fraud", "3")),
        ("models:/a.b/rc-1", ("a.b", "rc-1")),
        ("s3://models/fraud/3", None),
        ("file:models:/fraud/3", None),
        ("iris.onnx", None),
    ],
)
def test_an_address_of_the_registry_names_model_and_version(
    uri: str, expected: tuple[str, str] | None
) -> None:
    assert names.registry_reference(uri) == expected


@pytest.mark.parametrize(
    "uri",
    ["models:", "models:/", "models:/fraud", "models:fraud/3", "models://fraud/3", "models:/a/b/c",
     "models:/a/", "models://h/a/b", "models:/../b", "models:/a/b?x=1", "models:/a/b#f",
     "models:/a b/c"],
)  # fmt: skip
def test_an_address_of_the_registry_without_a_version_is_refused(uri: str) -> None:
    with pytest.raises(InvalidName):
        names.registry_reference(uri)


@given(st.from_regex(names.URI_PATTERN, fullmatch=True))
def test_an_address_that_the_resource_takes_can_be_read(uri: str) -> None:
    reference = names.registry_reference(uri) if uri.startswith("models:") else None
    assert (reference is not None) == uri.startswith("models:")


def test_every_scheme_is_in_the_pattern_of_addresses() -> None:
    for scheme in names.SCHEMES:
        uri = "models:/a/1" if scheme == "models" else f"{scheme}:x"
        assert re.match(names.URI_PATTERN, uri)
    assert not re.match(names.URI_PATTERN, "ftp:x")


def test_a_qualified_name_reads_with_a_slash() -> None:
    assert str(names.Qualified("payments", "fraud")) == "payments/fraud"
