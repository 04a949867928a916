"""The shape of the house, where no linter looks."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from moorage_api import manifests

ROOT = Path(__file__).parents[1]
AREAS = {
    "api": "moorage_api",
    "cli": "moorage_cli",
    "gateway": "moorage_gateway",
    "operator": "moorage_operator",
    "runtime": "moorage_runtime",
    "serving": "moorage_serving",
}
#: Folders of `tests/unit` whose subject is no package.
NO_PACKAGE = {"benchmarks", "docs", "examples"}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def committed(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [ROOT / line for line in found.splitlines() if (ROOT / line).is_file()]
    assert paths
    return paths


@pytest.mark.parametrize("area", AREAS)
def test_a_program_folder_holds_one_package_and_is_none_itself(area: str) -> None:
    packages = [path.parent.name for path in (ROOT / area).glob("*/__init__.py")]
    assert packages == [AREAS[area]]
    assert not (ROOT / area / "__init__.py").exists()


def test_every_package_is_built_typed_and_linted() -> None:
    config = project()
    wanted = sorted(f"{area}/{package}" for area, package in AREAS.items())
    assert sorted(config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == wanted
    assert sorted(config["tool"]["importlinter"]["root_packages"]) == sorted(AREAS.values())
    assert sorted(config["tool"]["mypy"]["packages"]) == sorted(AREAS.values())
    for area, package in AREAS.items():
        assert (ROOT / area / package / "py.typed").exists()


def test_tests_have_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_a_unit_test_mirrors_the_module_that_it_tests() -> None:
    lost = []
    for path in (ROOT / "tests" / "unit").rglob("test_*.py"):
        area, *folders, name = path.relative_to(ROOT / "tests" / "unit").parts
        if area in NO_PACKAGE:
            continue
        module = ROOT.joinpath(area, AREAS[area], *folders, name.removeprefix("test_"))
        entry = module.with_name(f"__{module.name.removesuffix('.py')}__.py")
        if not module.exists() and not module.with_suffix("").is_dir() and not entry.exists():
            lost.append(str(path.relative_to(ROOT)))
    assert not lost


def test_the_map_names_every_package_and_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for area, package in AREAS.items():
        assert f"`{area}/{package}`" in text
    for path in re.findall(r"`((?:api|cli|gateway|operator|runtime|serving)/[\w./]+)`", text):
        assert (ROOT / path).exists(), f"docs/architecture.md names {path}"


def test_every_link_between_documents_leads_somewhere() -> None:
    for path in committed("*.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
            assert "://" in target or (path.parent / target).exists(), f"{path.name}: {target}"


def test_decisions_have_the_five_headings() -> None:
    files = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in files] == list(range(1, len(files) + 1))
    for path in files:
        headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
        assert headings[0].startswith(f"{int(path.name[:4])}. ")
        assert headings[1:] == ["Status", "Context", "Decision", "Consequences"]


def test_every_deployment_in_examples_and_documents_is_valid() -> None:
    texts = {path: path.read_text("utf-8") for path in committed("examples/*.yaml")}
    for path in committed("*.md"):
        for number, block in enumerate(
            re.findall(r"^```yaml\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        ):
            if any("kind" in (document or {}) for document in yaml.safe_load_all(block)):
                texts[path.with_suffix(f".{number}")] = block
    assert any(path.name.startswith("README") for path in texts)
    for path, text in texts.items():
        assert manifests.parse(text, str(path))


def test_the_words_of_documents_and_ci_are_targets_of_make() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"help", "demo", "test", "check", "verify", "generate", "bench", "clean"} <= targets
    for path in [*committed("*.md"), ROOT / ".ci" / "run"]:
        for words in re.findall(r"(?:`|^)make ([a-z ]+)", path.read_text("utf-8"), re.MULTILINE):
            assert set(words.split()) <= targets, f"{path.name}: make {words}"


def test_every_dependency_is_pinned_by_version_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").split("\n")
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin) for pin in pins), pins
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    config = project()["project"]
    # What only a model store needs is not installed for the tests.
    extras = {"local", "runtime", "gateway", "cli", "serving", "dev", "train", "storage"}
    wanted = list(config["dependencies"])
    for extra, items in config["optional-dependencies"].items():
        wanted += items if extra in extras else []
    names = {re.split(r"[\[<>=;!~ ]", item)[0].lower() for item in wanted} - {"moorage"}
    assert {re.sub(r"[-_.]+", "-", name) for name in names} <= pinned


def test_the_runtime_starts_without_a_web_framework() -> None:
    code = "import sys, moorage_runtime.__main__; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"fastapi", "starlette", "sqlalchemy", "onnx", "kubernetes"} & set(modules)
