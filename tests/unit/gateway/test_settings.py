"""What the gateway can be told."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from moorage_gateway.settings import Settings


def test_the_defaults_serve_this_machine_alone() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert (settings.data, settings.database, settings.routes) == (Path(".moorage"), "", None)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_PORT", "0")
    monkeypatch.setenv("MOORAGE_DATA", "/data")
    assert (Settings().port, Settings().data) == (0, Path("/data"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOORAGE_PORT", "65536"),
        ("MOORAGE_PORT", "-1"),
        ("MOORAGE_ROUTES", "kubernetes"),
        ("MOORAGE_RUNTIME_TIMEOUT_S", "0"),
        ("MOORAGE_MAX_BODY_BYTES", "0"),
        ("MOORAGE_LOG_LEVEL", "loud"),
    ],
)
def test_what_would_not_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()
