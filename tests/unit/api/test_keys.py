import re

import pytest

from moorage_api import keys

KEYS = {
    name: value for name, value in vars(keys).items() if name.startswith(("LABEL_", "ANNOTATION_"))
}


@pytest.mark.parametrize("name", KEYS)
def test_a_label_or_annotation_is_a_valid_key_of_kubernetes(name: str) -> None:
    prefix, slash, short = KEYS[name].partition("/")
    assert slash
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", prefix)
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", short)


def test_keys_are_all_different() -> None:
    assert len(set(KEYS.values())) == len(KEYS)


def test_headers_are_in_lower_case_as_asgi_gives_them() -> None:
    headers = [value for name, value in vars(keys).items() if name.startswith("HEADER_")]
    assert len(headers) == 3
    assert all(header == header.lower() for header in headers)


def test_the_api_version_is_group_and_version() -> None:
    assert keys.API_VERSION == f"{keys.GROUP}/{keys.VERSION}" == "moorage.dev/v1alpha1"
