"""`moorage`: the commands."""

import asyncio
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from moorage_api import __version__, crd, manifests
from moorage_api.errors import InvalidBody, InvalidResource, MoorageError
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.reasons import AS_ASKED, Condition, Phase
from moorage_cli import exits, files
from moorage_cli.gateway import Gateway
from moorage_cli.local import up as local_up
from moorage_operator.core import desired
from moorage_operator.core.desired.manifest import Defaults

app = typer.Typer(
    name="moorage",
    help="One YAML puts an ONNX model on Kubernetes. Every prediction is remembered.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # The first character keeps the lines from being filled into a paragraph.
    epilog="\b\nExit status:\n"
    + "\n".join(f"  {status}  {meaning}" for status, meaning in exits.MEANING.items()),
)

_Result = TypeVar("_Result")


class Output(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


Files = Annotated[
    list[Path], typer.Argument(help="YAML files with ModelDeployments, or folders of them.")
]
GatewayUrl = Annotated[
    str, typer.Option("--gateway", envvar="MOORAGE_GATEWAY", help="URL of the gateway.")
]
OutputAs = Annotated[Output, typer.Option("--output", "-o", help="For eyes, or for scripts.")]

_LOCAL_GATEWAY = "http://127.0.0.1:8080"
_PIPE_WIDTH = 1000


@app.command()
def up(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="YAML files with ModelDeployments, or folders of them."),
    ] = None,
    host: Annotated[str, typer.Option(envvar="MOORAGE_HOST", help="Address to listen on.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int, typer.Option(envvar="MOORAGE_PORT", min=0, max=65535, help="0 takes a free port.")
    ] = 8080,
    data: Annotated[
        Path, typer.Option(envvar="MOORAGE_DATA", help="Folder for models and the record.")
    ] = Path(".moorage"),
    database: Annotated[
        str,
        typer.Option(
            envvar="MOORAGE_DATABASE",
            help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE; default: "
            "DATA/predictions.db. A command line is for everybody on this machine to read: give a "
            "password by the variable.",
        ),
    ] = "",
) -> None:
    """Serve models on this machine, from the very YAML that kubectl takes, until Ctrl-C.

    Changed files are picked up. Prints `ready URL` on standard output when every model serves; a
    model that fails keeps `ready` from being said, and `moorage status` tells why.

    What /deployments/undeploy or /deployments/deploy changed stays so until the document in the
    file changes; a restart restores what the files say, and keeps deployments that only the
    gateway made.
    """
    console = Console(stderr=True, highlight=False)
    reporter = local_up.Reporter(
        changed=lambda key, observed: console.print(_news(key, observed), soft_wrap=True),
        ready=lambda url: print("ready", url, flush=True),  # noqa: T201
        warned=lambda words: console.print(
            Text.assemble(("warning", "yellow"), f"    {words}"), soft_wrap=True
        ),
    )
    options = local_up.Options(paths or [], host, port, data, database)
    _try(lambda: asyncio.run(local_up.run(options, reporter)))


@app.command()
def validate(paths: Files, output: OutputAs = Output.TEXT) -> None:
    """Check ModelDeployment files as the API server would, and against each other."""
    try:
        found = files.read_all(files.expand(paths))
    except InvalidResource as error:
        if output is Output.JSON:
            problems = [str(problem) for problem in error.problems]
            _print_json({"valid": False, "source": error.source, "problems": problems})
            raise typer.Exit(exits.status_of(error)) from error
        lead = f"{error.source}: " if error.source else ""
        for problem in error.problems:
            typer.echo(f"{lead}{problem}", err=True)
        raise typer.Exit(exits.status_of(error)) from error
    names = [str(resource.key) for group in found.values() for resource in group]
    if output is Output.JSON:
        _print_json({"valid": True, "deployments": names})
    else:
        for file, group in found.items():
            for resource in group:
                typer.echo(f"{file}: {resource.key} is valid")


@app.command()
def render(
    paths: Files,
    image: Annotated[str, typer.Option(help="Of the runtime.")] = Defaults().image,
    registry: Annotated[
        str, typer.Option(help="URL of the gateway that has models:/NAME/VERSION.")
    ] = "",
) -> None:
    """Print the Kubernetes objects that the operator applies for ModelDeployments."""
    found = _try(lambda: files.read_all(files.expand(paths)))
    defaults = Defaults(image, registry)
    documents = [
        manifests.render_document(manifest)
        for group in found.values()
        for resource in group
        for manifest in desired.build(resource, defaults)
    ]
    for file, group in found.items():
        for resource in group:
            if problem := files.beyond_pods(resource, registry):
                typer.echo(f"warning: {file}: {resource.key}: {problem}", err=True)
    typer.echo("---\n".join(documents), nl=False)


@app.command("crd")
def print_crd() -> None:
    """Print the CustomResourceDefinition."""
    typer.echo(crd.render(), nl=False)


@app.command()
def status(gateway: GatewayUrl = _LOCAL_GATEWAY, output: OutputAs = Output.TEXT) -> None:
    """Show what a gateway serves; ends with 1 when something that should serve does not."""
    deployments = _try(lambda: Gateway(gateway).deployments())
    if output is Output.JSON:
        _print_json(deployments)
    else:
        _print_table(deployments)
    if any(deployment["status"] not in AS_ASKED for deployment in deployments):
        raise typer.Exit(exits.FAILED)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Of a deployment or a model.")],
    value: Annotated[
        str, typer.Argument(metavar="INPUT", help="JSON, @FILE, or - for standard input.")
    ],
    version: Annotated[str | None, typer.Option(help="Default: the highest deployed.")] = None,
    gateway: GatewayUrl = _LOCAL_GATEWAY,
    output: OutputAs = Output.TEXT,
) -> None:
    """Predict with a deployed model: `moorage predict iris '[5.1, 3.5, 1.4, 0.2]'`."""
    answer = _try(lambda: Gateway(gateway).predict(model, version, _read_json(value)))
    _print_json(answer if output is Output.JSON else answer["prediction"])


@app.command()
def push(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An ONNX file.")],
    name: Annotated[str, typer.Option(help="Of the model.")],
    version: Annotated[str | None, typer.Option(help="Default: the next whole number.")] = None,
    gateway: GatewayUrl = _LOCAL_GATEWAY,
    output: OutputAs = Output.TEXT,
) -> None:
    """Store a model version in a gateway's registry; deploy it as models:/NAME/VERSION."""
    bar = RichProgress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(f"pushing {file.name}", total=file.stat().st_size)
        stored = _try(
            lambda: Gateway(gateway).push(file, name, version, lambda size: bar.advance(task, size))
        )
    if output is Output.JSON:
        _print_json(stored)
    else:
        typer.echo(f"{stored['uri']}  sha256:{stored['sha256']}  {stored['size_bytes']} bytes")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command and exit: 0 good, 1 failed, 2 wrong use; `exits` has the rest."""
    app()


def _try(action: Callable[[], _Result]) -> _Result:
    """Do it; end with a line and the status of the error when it fails."""
    try:
        return action()
    except MoorageError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(exits.status_of(error)) from error


def _read_json(value: str) -> Any:
    if value == "-":
        text = sys.stdin.buffer.read()
    elif value.startswith("@"):
        try:
            text = Path(value[1:]).read_bytes()
        except OSError as error:
            raise InvalidBody(f"{value[1:]}: {error.strerror}") from error
    else:
        text = value.encode()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidBody(f"the input is not JSON: {error}") from error


def _print_json(value: Any) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


_COLOURS = {
    Phase.READY: "green",
    Phase.PENDING: "blue",
    Phase.DEGRADED: "yellow",
    Phase.FAILED: "red",
    Phase.STOPPED: "dim",
}


def _news(key: Qualified, observed: Observed) -> Text:
    status = observed.status
    ready = status.condition(Condition.READY)
    phase = Phase(status.phase)
    where = f"  {status.url}" if phase is Phase.READY else ""
    words = ""
    if ready:
        words = ready.message if ready.reason == phase else f"{ready.reason}: {ready.message}"
    # As `Text`, because rich reads markup into foreign words otherwise.
    return Text.assemble((f"{phase:<9}", _COLOURS[phase]), f"  {key}  {words}{where}")


def _print_table(deployments: list[dict[str, Any]]) -> None:
    """Print a line for each deployment, and why one does not serve."""
    console = Console(highlight=False)
    columns = ["NAME", "MODEL", "VERSION", "STATUS", "REPLICAS", "REQUESTS", "AVG MS", "PATH"]
    if not console.is_terminal:
        # One line each, for grep and awk.
        console.width = _PIPE_WIDTH
        columns.append("MESSAGE")
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    messages: list[Text] = []
    for item in deployments:
        phase = Phase(item["status"]) if item["status"] in set(Phase) else Phase.PENDING
        name = f"{item['namespace']}/{item['name']}"
        reason = f" {item['reason']}" if item["reason"] not in ("", phase) else ""
        message = Text("" if phase is Phase.READY else item["message"])
        if message:
            messages.append(Text.assemble((name, _COLOURS[phase]), ": ", message))
        average = item["avg_latency_ms"]
        cells: list[Text | str] = [
            Text(name),
            Text(item["model_name"]),
            Text(item["version"]),
            Text.assemble((phase, _COLOURS[phase]), "" if phase is Phase.READY else reason),
            f"{item['ready_replicas']}/{item['replicas']}",
            str(item["request_count"]),
            "-" if average is None else f"{average:.2f}",
            Text(item["url"] or "-"),
            message,
        ]
        table.add_row(*cells[: len(columns)])
    console.print(table)
    if console.is_terminal:
        # A column of sentences would squeeze the others.
        for line in messages:
            console.print(line, soft_wrap=True)


if __name__ == "__main__":
    main()
