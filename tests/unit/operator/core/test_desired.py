"""What the operator applies, whole: `moorage render` against files that a person can review.

`MOORAGE_UPDATE_GOLDEN=1 pytest tests/unit/operator` writes the files anew.
"""

import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from moorage_api import manifests
from moorage_cli.__main__ import app
from moorage_operator.core import desired
from moorage_operator.core.desired.manifest import Defaults

FOLDER = Path(__file__).parents[1]
GOLDEN = FOLDER / "golden"
ASKED = sorted((FOLDER / "resources").glob("*.yaml"))
IMAGE = "registry.example.com/moorage-runtime:test"
REGISTRY = "http://moorage-gateway.moorage.svc"


@pytest.mark.parametrize("asked", ASKED, ids=lambda path: path.stem)
def test_render_prints_the_golden_objects(asked: Path) -> None:
    golden = GOLDEN / asked.name
    result = CliRunner().invoke(
        app, ["render", str(asked), "--image", IMAGE, "--registry", REGISTRY]
    )
    assert result.exit_code == 0, result.stderr
    if os.environ.get("MOORAGE_UPDATE_GOLDEN"):
        golden.write_text(result.stdout, encoding="utf-8")
    assert result.stdout == golden.read_text(encoding="utf-8")


def test_every_golden_file_has_a_resource() -> None:
    assert [path.name for path in sorted(GOLDEN.iterdir())] == [path.name for path in ASKED]


@pytest.mark.parametrize("asked", ASKED, ids=lambda path: path.stem)
def test_the_objects_share_no_part_with_each_other(asked: Path) -> None:
    (resource,) = manifests.parse(asked.read_text(encoding="utf-8"))
    # YAML marks what is shared by an anchor.
    text = yaml.safe_dump_all(list(desired.build(resource, Defaults())))
    assert "&id" not in text


def test_what_is_rendered_is_what_is_built() -> None:
    result = CliRunner().invoke(app, ["render", str(ASKED[0])])
    (resource,) = manifests.parse(ASKED[0].read_text(encoding="utf-8"))
    documents = list(yaml.safe_load_all(result.stdout))
    assert documents == list(desired.build(resource, Defaults()))
    assert [document["kind"] for document in documents] == ["Service", "Deployment"]
