"""docs/protocols.md says what the code does: its paths, statuses, flags and limits."""

import ast
import asyncio
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from moorage_api.names import Qualified
from moorage_api.signature import Signature, TensorSpec
from moorage_gateway import openapi
from moorage_gateway.dialects.paths import target_of
from moorage_gateway.http import deployments, models, operations, predictions, protocols
from moorage_gateway.routing import Route, Table
from moorage_gateway.settings import Settings as GatewaySettings
from moorage_runtime.app import RuntimeApp
from moorage_runtime.settings import Settings as RuntimeSettings
from moorage_serving import answers

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
MODULES = {
    ".".join(file.relative_to(folder).with_suffix("").parts): file
    for folder in (ROOT / name for name in ("api", "serving", "runtime", "gateway"))
    for file in folder.rglob("*.py")
}
#: Bounds that no request, answer or record meets.
NOT_FOR_USERS = {
    "moorage_gateway.store.paging.MAX_MERGED",  # A way to page, not a limit of it.
}
_UNITS = {"": 1, "s": 1, "characters": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def section(*titles: str) -> str:
    """The text under a heading, and under one inside it."""
    text = PAGE
    for level, title in enumerate(titles, start=2):
        mark = "#" * level
        text = f"\n{text}\n{mark} ".split(f"\n{mark} {title}\n")[1]
        text = re.split(rf"\n#{{2,{level}}} ", text)[0]
    return text


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of every table whose first column has this heading."""
    rows: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not cells[0].startswith("---"):
            rows.append(cells)
    assert rows, heading
    return rows


def listed(text: str) -> list[tuple[str, str]]:
    """Method and path of each row of a table of paths."""
    return [
        (found[1], found[2])
        for cell, *_ in table(text, "method and path")
        if (found := re.fullmatch(r"`([A-Z]+) (\S+)`", cell))
    ]


def amounts(text: str) -> list[float]:
    """The numbers in a cell, with their units worked in: `256 MiB`, `1,024`, `0.1 s to 30 s`."""
    pattern = r"(?<![\w.])(\d[\d,]*(?:\.\d+)?(?:e-?\d+)?) ?(KiB|MiB|GiB|s\b|characters)?"
    return [
        float(number.replace(",", "")) * _UNITS[unit] for number, unit in re.findall(pattern, text)
    ]


LIMITS = [row for row in table(section("Limits"), "what") if row[2]]


def routes() -> Iterator[Any]:
    for group in (operations, deployments, models, predictions, protocols):
        yield from group.router.routes


def test_every_route_of_the_gateway_is_listed() -> None:
    paths = listed(section("Paths", "Of the gateway"))
    prose = section("Paths")
    for route in routes():
        if "{path:path}" in route.path:
            # A family: some of it is listed path by path, what is refused is in prose.
            family = route.path.partition("{path:path}")[0]
            assert any(path.startswith(family) for _, path in paths) or f"{family}…" in prose
        elif not route.path.endswith("/") or route.path == "/":
            for method in route.methods:
                assert (method, route.path) in paths


def test_every_path_that_predicts_is_listed() -> None:
    spec = TensorSpec("x", "FP32", (-1, 2))
    route = Route(
        Qualified("default", "a"), "{endpoint}", "m", "1", "", Signature((spec,), (spec,))
    )
    paths = listed(section("Paths", "Of the gateway"))
    for path, methods in openapi.paths(Table([route])).items():
        for method in methods:
            assert (method.upper(), path) in paths


def test_the_gateway_answers_at_every_listed_path() -> None:
    for method, path in listed(section("Paths", "Of the gateway")):
        plain = re.sub(r"{\w+}", "x", path)
        if path in ("/openapi.json", "/docs"):
            continue
        found = [
            route
            for route in routes()
            if method in route.methods and route.path_regex.fullmatch(plain)
        ]
        assert found or (method == "POST" and target_of(plain)), path


def test_the_runtime_answers_at_every_listed_path() -> None:
    app = RuntimeApp("x", "x")
    for method, path in listed(section("Paths", "Of the runtime")):
        # The model is not loaded: 503 is an answer of the path, 404 and 405 are not.
        assert asyncio.run(status_of(app, method, re.sub(r"{\w+}", "x", path))) in (200, 503), path


async def status_of(app: RuntimeApp, method: str, path: str) -> int:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    status: int = sent[0]["status"]
    return status


def test_the_table_of_statuses_is_the_one_in_the_code() -> None:
    told = {
        name: int(status)
        for status, names, _ in table(section("Errors"), "status")
        for name in re.findall(r"`(\w+)`", names)
    }
    assert told == {kind.__name__: status for kind, status in answers.STATUS.items()}


@pytest.mark.parametrize(
    ("program", "settings"),
    [("moorage-gateway", GatewaySettings), ("moorage-runtime", RuntimeSettings)],
)
def test_every_setting_is_listed_with_its_default(
    program: str, settings: type[BaseSettings]
) -> None:
    rows = {
        row[0].split(",")[0].strip("`"): row for row in table(section("Settings", program), "flag")
    }
    assert rows.keys() == {f"--{name.replace('_', '-')}" for name in settings.model_fields}
    for name, field in settings.model_fields.items():
        _, variable, default, _ = rows[f"--{name.replace('_', '-')}"]
        assert variable == f"`MOORAGE_{name.upper()}`"
        if default.startswith("`"):
            assert default == f"`{field.default}`"
        elif default:
            assert amounts(default) == [field.default]
        else:
            assert field.is_required() or not field.default


@pytest.mark.parametrize(
    ("value", "constant"),
    [(row[1], row[2].strip("`")) for row in LIMITS],
    ids=[f"{row[0]}-{row[2]}" for row in LIMITS],
)
def test_a_limit_is_the_constant_in_the_code(value: str, constant: str) -> None:
    module, _, name = constant.rpartition(".")
    found = constants(module)[name]
    assert amounts(value) == list(found if isinstance(found, tuple) else (found,))


def test_every_limit_of_the_code_is_listed() -> None:
    found = {
        f"{module}.{name}"
        for module in MODULES
        for name in constants(module)
        if re.fullmatch(r"MAX_\w+|[A-Z]\w*_(MAX|LIMIT)", name)
    }
    assert found - NOT_FOR_USERS <= {row[2].strip("`") for row in LIMITS}


@cache
def constants(module: str) -> dict[str, Any]:
    """The numbers that a module spells out; read, because importing the store takes a second."""
    found: dict[str, Any] = {}
    for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            text = ast.unparse(node.value)
            if re.fullmatch(r"[-+*()., e\d]+", text):
                found[node.target.id] = eval(text)
    return found
