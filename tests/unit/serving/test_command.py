import pytest
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from moorage_serving import command


class Settings(BaseSettings):
    """Settings of no program."""

    model_config = SettingsConfigDict(
        env_prefix="MOORAGE_TEST_", cli_prog_name="test", cli_kebab_case=True
    )

    model: str
    max_rows: int = Field(default=5, ge=1)


def test_a_flag_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_TEST_MODEL", "by-environment")
    monkeypatch.setenv("MOORAGE_TEST_MAX_ROWS", "7")
    settings = command.parse(Settings, ["--model", "by-flag"])
    assert (settings.model, settings.max_rows) == ("by-flag", 7)
    assert command.parse(Settings, ["--max-rows=2"]).model == "by-environment"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "--model is required; see --help"),
        (["--model", "m", "--max-rows", "0"], "--max-rows: Input should be greater than or equal"),
        (["--model", "m", "--max-rows", "x"], "--max-rows: Input should be a valid integer"),
        (["--model", "m", "--rows", "1"], "unrecognized arguments: --rows 1"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) else None,
)
def test_wrong_use_ends_with_2_and_a_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        command.parse(Settings, arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err
    assert "Traceback" not in err


def test_help_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.parse(Settings, ["--help"])
    assert caught.value.code == 0
    assert "--max-rows" in capsys.readouterr().out


def test_announcements_go_out_and_complaints_to_the_side(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command.announce("ready", "iris 1")
    with pytest.raises(SystemExit) as caught:
        command.fail("no such model", 3)
    assert caught.value.code == 3
    assert capsys.readouterr() == ("ready iris 1\n", "no such model\n")
