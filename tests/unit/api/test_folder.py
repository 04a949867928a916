import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import specs

from moorage_api import folder, v1alpha1
from moorage_api.errors import InvalidBody
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.v1alpha1 import ConditionStatus, ModelDeploymentStatus

NAME = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
OBSERVED = Observed(
    "d1",
    ("http://127.0.0.1:9000", "http://127.0.0.1:9001"),
    ModelDeploymentStatus(
        phase="Ready",
        conditions=[
            ConditionStatus(
                type="Ready",
                status="True",
                reason="Serving",
                message="1/1",
                last_transition_time=datetime(2026, 1, 2, tzinfo=UTC),
            )
        ],
    ),
)


def test_a_deployment_has_one_file_for_what_is_asked_and_one_for_what_is_seen() -> None:
    key = Qualified("payments", "fraud")
    assert folder.file_name(key) == "payments.fraud.yaml"
    assert folder.status_name(key) == "payments.fraud.status.json"
    assert folder.file_name(key).endswith(folder.YAML_SUFFIXES)
    assert not folder.status_name(key).endswith(folder.YAML_SUFFIXES)


@given(NAME, NAME, NAME, NAME)
def test_two_deployments_never_share_a_file(a: str, b: str, c: str, d: str) -> None:
    left, right = Qualified(a, b), Qualified(c, d)
    assert (folder.file_name(left) == folder.file_name(right)) == (left == right)


def test_a_status_reads_back_as_it_was() -> None:
    assert folder.parse_status(folder.render_status(OBSERVED)) == OBSERVED


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b"{}",
        b'{"spec": "a"}',
        b'{"spec": "a", "addresses": 5, "status": {}}',
        b'{"spec": "a", "addresses": "http://h", "status": {}}',
        b'{"spec": "a", "addresses": [], "status": 5}',
        b'{"spec": "a", "addresses": [], "status": {"replicas": "x"}}',
        folder.render_status(OBSERVED)[:-20],
    ],
)
def test_what_is_no_status_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidBody, match="not a status file"):
        folder.parse_status(text)


def test_fields_of_a_later_version_are_read_over() -> None:
    raw = folder.render_status(OBSERVED)
    later = re.sub(rb'"phase"', b'"later": [1], "phase"', raw)
    assert later != raw
    assert folder.parse_status(later) == OBSERVED


def test_a_digest_is_of_the_spec_with_its_defaults() -> None:
    short = v1alpha1.load(specs.deployment({"model": specs.MODEL}))
    long = v1alpha1.load(
        specs.deployment({"model": specs.MODEL, "replicas": 1, "stopped": False}, "other")
    )
    assert folder.digest(short) == folder.digest(long)


def test_specs_that_differ_have_different_digests() -> None:
    specs_ = [v1alpha1.load(specs.deployment(spec)) for spec in specs.GOOD.values()]
    different: list[object] = []
    for resource in specs_:
        if resource.spec not in different:
            different.append(resource.spec)
    assert len({folder.digest(resource) for resource in specs_}) == len(different)
