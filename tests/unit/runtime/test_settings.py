from pathlib import Path
from typing import Any

import pytest

from moorage_runtime.settings import Settings
from moorage_serving import command


def test_flags_are_in_kebab_case_and_a_model_is_enough() -> None:
    settings = command.parse(Settings, ["--model", "a.onnx"])
    assert (settings.name, settings.version, settings.http_port) == ("model", "1", 9000)
    assert settings.host == "127.0.0.1"
    settings = command.parse(
        Settings, ["--model=a", "--http-port=0", "--max-batch-size=1", "--no-warmup"]
    )
    assert (settings.http_port, settings.max_batch_size, settings.warmup) == (0, 1, False)


def test_the_environment_speaks_where_no_flag_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_MODEL", "by-environment")
    monkeypatch.setenv("MOORAGE_REGISTRY", "http://gateway")
    monkeypatch.setenv("MOORAGE_DATABASE", "not of this program")
    settings = command.parse(Settings, ["--name", "iris"])
    assert (settings.model, settings.registry) == ("by-environment", "http://gateway")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "--model is required"),
        ({"model": ""}, "--model: "),
        ({"name": "a/b"}, "--name: "),
        ({"name": ".."}, "--name: "),
        ({"version": ""}, "--version: "),
        ({"sha256": "A" * 64}, "--sha256: "),
        ({"http-port": "65536"}, "--http-port: "),
        ({"http-port": "-1"}, "--http-port: "),
        ({"max-batch-size": "0"}, "--max-batch-size: "),
        ({"max-delay-ms": "-1"}, "--max-delay-ms: "),
        ({"log-level": "loud"}, "--log-level: "),
        ({"max-body-bytes": "0"}, "--max-body-bytes: "),
    ],
    ids=str,
)
def test_wrong_use_is_a_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: dict[str, str], words: str
) -> None:
    given = ({"model": "a.onnx"} | arguments) if arguments else {}
    with pytest.raises(SystemExit) as caught:
        command.parse(Settings, [f"--{name}={value}" for name, value in given.items()])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(words)


def test_every_setting_says_what_it_is_for() -> None:
    undescribed = [name for name, field in Settings.model_fields.items() if not field.description]
    # Their choices say it.
    assert undescribed == ["log_level", "log_format"]


def test_settings_do_not_change_once_read(tmp_path: Path) -> None:
    settings: Any = command.parse(Settings, ["--model", str(tmp_path)])
    with pytest.raises(ValueError, match="frozen"):
        settings.name = "other"
