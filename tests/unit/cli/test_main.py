"""The commands: what they print, where, and with which status they end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from moorage_api import __version__, crd
from moorage_cli import exits
from moorage_cli.__main__ import app

Document = Callable[..., dict[str, Any]]
Write = Callable[..., Path]

NO_GATEWAY = "http://127.0.0.1:1"


def moorage(*words: object, stdin: bytes | None = None, **environment: str) -> Result:
    """Run a command; whatever goes wrong must end it with a line, not with an exception."""
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def deployment(**facts: Any) -> dict[str, Any]:
    """Return an entry of `GET /deployments`."""
    return {
        "name": "iris",
        "namespace": "default",
        "model_name": "iris",
        "version": "1",
        "endpoint": "iris",
        "url": "/predict/iris",
        "status": "Ready",
        "reason": "Serving",
        "message": "1 of 1 serve version 1",
        "replicas": 1,
        "ready_replicas": 1,
        "deployed_at": "2026-01-01T00:00:00Z",
        "request_count": 3,
        "avg_latency_ms": 1.234,
        **facts,
    }


class TestUse:
    """Of the command itself."""

    @pytest.mark.parametrize(
        "words",
        [
            ["no-such-command"],
            ["validate"],
            ["validate", "a.yaml", "--no-such-option"],
            ["validate", "a.yaml", "--output", "xml"],
            ["predict", "iris"],
            ["push", "there-is-no-such-file.onnx", "--name", "m"],
            ["push", __file__],
            ["up", "--port", "65536"],
            ["up", "--port", "many"],
            [],
        ],
        ids=" ".join,
    )
    def test_wrong_use_ends_with_2_and_says_so_on_standard_error(self, words: list[str]) -> None:
        result = moorage(*words)
        assert result.exit_code == 2
        assert result.stderr or not words

    def test_the_version_is_that_of_the_package(self) -> None:
        assert moorage("--version").stdout == f"{__version__}\n"

    def test_help_names_every_command(self) -> None:
        words = moorage("--help").stdout
        for command in ("up", "validate", "render", "crd", "status", "predict", "push"):
            assert f"  {command} " in words

    def test_help_says_what_each_exit_status_means(self) -> None:
        lines = moorage("--help").stdout.splitlines()
        for status, meaning in exits.MEANING.items():
            assert f"    {status}  {meaning}" in lines

    def test_help_of_up_says_what_it_makes_of_failures_and_of_changes(self) -> None:
        words = " ".join(moorage("up", "--help").stdout.split())
        assert "a model that fails keeps `ready` from being said" in words
        assert "a restart restores what the files say" in words
        assert "postgresql://USER:PASSWORD@HOST/DATABASE" in words


class TestValidate:
    """`moorage validate`."""

    def test_good_files_are_named_on_standard_output(
        self, write: Write, document: Document
    ) -> None:
        file = write("a.yaml", document("one"), document("two"))
        result = moorage("validate", file)
        assert result.exit_code == 0
        assert result.stdout == f"{file}: default/one is valid\n{file}: default/two is valid\n"

    def test_the_examples_are_valid(self) -> None:
        examples = Path(__file__).parents[3] / "examples"
        result = moorage("validate", examples, "-o", "json")
        assert result.exit_code == 0
        assert "default/iris" in json.loads(result.stdout)["deployments"]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a: [", "is not YAML"),
            ("kind: ModelDeployment\nkind: ModelDeployment\n", "key 'kind' stands here twice"),
            ("kind: Pod\n", "expected ModelDeployment, got 'Pod'"),
            ("", "holds no ModelDeployment"),
            ("just words\n", "kind: expected ModelDeployment"),
        ],
        ids=["broken", "a key twice", "another kind", "empty", "no mapping"],
    )
    def test_what_is_no_resource_is_refused(self, tmp_path: Path, text: str, words: str) -> None:
        file = tmp_path / "a.yaml"
        file.write_text(text, encoding="utf-8")
        result = moorage("validate", file)
        assert (result.exit_code, result.stdout) == (4, "")
        assert words in result.stderr
        assert str(file) in result.stderr

    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ({"replica": 2}, "spec.replica: is not a field of this resource; is it misspelt?"),
            ({"replicas": "2"}, "spec.replicas: "),
            ({"replicas": -1}, "spec.replicas: "),
            ({"version": "a/b"}, "spec.model.version: expected letters"),
            ({"uri": "model.onnx"}, "spec.model.uri: expected an address such as"),
            ({"uri": "models:/m/1", "version": "2"}, "spec.model: version must be the one"),
        ],
        ids=["unknown", "type", "range", "pattern", "address", "rule"],
    )
    def test_a_problem_names_its_field_and_what_is_expected(
        self, write: Write, document: Document, spec: dict[str, Any], words: str
    ) -> None:
        result = moorage("validate", write("a.yaml", document(**spec)))
        assert result.exit_code == 4
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_every_problem_has_a_line(self, write: Write, document: Document) -> None:
        file = write("a.yaml", document("One", replicas=-1), document("two", stopped="yes"))
        assert len(moorage("validate", file).stderr.splitlines()) == 3

    def test_a_script_reads_the_verdict_as_json(self, write: Write, document: Document) -> None:
        good = moorage("validate", write("a.yaml", document("one")), "--output", "json")
        assert json.loads(good.stdout) == {"valid": True, "deployments": ["default/one"]}
        file = write("b.yaml", document("two", replica=1))
        bad = moorage("validate", file, "--output", "json")
        assert (bad.exit_code, bad.stderr) == (4, "")
        said = json.loads(bad.stdout)
        assert said["valid"] is False
        assert len(said["problems"]) == 1
        assert str(file) in said["problems"][0]
        assert "spec.replica" in said["problems"][0]

    def test_files_that_contradict_each_other_are_refused(
        self, write: Write, document: Document
    ) -> None:
        one, two = write("1.yaml", document("a")), write("2.yaml", document("b", endpoint="a"))
        result = moorage("validate", one, two)
        assert result.exit_code == 4
        words = f"{two}: default/b: endpoint 'a' is also claimed by default/a in {one}\n"
        assert words in result.stderr

    def test_of_two_in_one_file_both_are_named(self, write: Write, document: Document) -> None:
        file = write("two.yaml", document("a", endpoint="same"), document("b", endpoint="same"))
        result = moorage("validate", file)
        assert result.exit_code == 4
        assert "default/b: endpoint 'same' is also claimed by default/a in" in result.stderr

    @pytest.mark.parametrize("output", ["text", "json"])
    def test_a_path_that_is_not_there_is_named(self, tmp_path: Path, output: str) -> None:
        result = moorage("validate", tmp_path / "nothing.yaml", "-o", output)
        assert result.exit_code == 4
        assert "nothing.yaml" in result.output
        assert "no such file or folder" in result.output


class TestRenderAndCrd:
    """`moorage render` and `moorage crd`: YAML for kubectl on standard output."""

    def test_every_resource_of_every_file_is_rendered(
        self, write: Write, document: Document
    ) -> None:
        one = write("1.yaml", document("a"), document("b"))
        two = write("2.yaml", document("c"))
        found = list(yaml.safe_load_all(moorage("render", one, two).stdout))
        assert [(item["kind"], item["metadata"]["name"]) for item in found] == [
            (kind, name) for name in "abc" for kind in ("Service", "Deployment")
        ]

    def test_the_image_is_the_one_given(self, write: Write) -> None:
        found = moorage("render", write("a.yaml"), "--image", "mine:7").stdout
        assert "image: mine:7" in found

    @pytest.mark.parametrize(
        ("uri", "flags", "words"),
        [
            ("file:model.onnx", [], "file:model.onnx is relative to this file"),
            ("models:/m/1", [], "give its gateway's URL by --registry"),
            ("models:/m/1", ["--registry", "http://gateway"], ""),
            ("file:model.onnx", ["--registry", "http://gateway"], "https:, s3: or models:"),
            ("file:/models/model.onnx", [], ""),
            ("https://host/model.onnx", [], ""),
        ],
    )
    def test_a_model_that_pods_cannot_fetch_is_told_on_standard_error(
        self, write: Write, document: Document, uri: str, flags: list[str], words: str
    ) -> None:
        resource = document("a", uri=uri)
        del resource["spec"]["model"]["version"]
        file = write("a.yaml", resource)
        result = moorage("render", file, *flags)
        assert result.exit_code == 0
        assert len(list(yaml.safe_load_all(result.stdout))) == 2
        if words:
            assert result.stderr.startswith(f"warning: {file}: default/a: spec.model.uri {uri} ")
            assert words in result.stderr
            assert len(result.stderr.splitlines()) == 1
        else:
            assert result.stderr == ""

    def test_a_bad_file_is_one_line_on_standard_error(
        self, write: Write, document: Document
    ) -> None:
        result = moorage("render", write("a.yaml", document(replica=1)))
        assert (result.exit_code, result.stdout) == (4, "")
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1

    def test_the_crd_is_the_one_of_the_contract(self) -> None:
        printed = moorage("crd").stdout
        assert printed == crd.render()
        assert yaml.safe_load(printed) == crd.build()


class TestStatus:
    """`moorage status`."""

    def test_a_table_has_a_line_for_each_deployment(self, scripted: Any) -> None:
        long = "a-name-that-is-quite-long-but-still-allowed-in-every-cluster"
        rows = [deployment(), deployment(name=long, request_count=0, avg_latency_ms=None)]
        scripted.answer(200, {"deployments": rows})
        result = moorage("status", "--gateway", scripted.url)
        assert result.exit_code == 0
        head, first, second = result.stdout.splitlines()
        assert head.split()[:5] == ["NAME", "MODEL", "VERSION", "STATUS", "REPLICAS"]
        assert first.split() == [
            "default/iris",
            "iris",
            "1",
            "Ready",
            "1/1",
            "3",
            "1.23",
            "/predict/iris",
        ]
        assert second.split()[0] == f"default/{long}"
        assert second.split()[5:7] == ["0", "-"]

    @pytest.mark.parametrize(
        ("phase", "status"),
        [("Ready", 0), ("Stopped", 0), ("Pending", 1), ("Degraded", 1), ("Failed", 1), ("New", 1)],
    )
    def test_it_ends_with_1_when_something_that_should_serve_does_not(
        self, scripted: Any, phase: str, status: int
    ) -> None:
        scripted.answer(200, {"deployments": [deployment(status=phase), deployment(name="b")]})
        for output in ("text", "json"):
            assert moorage("status", "--gateway", scripted.url, "-o", output).exit_code == status

    def test_a_reason_is_shown_as_it_is(self, scripted: Any) -> None:
        odd = deployment(status="Failed", reason="[red]Bad\\[/]:smile:")
        scripted.answer(200, {"deployments": [odd]})
        result = moorage("status", "--gateway", scripted.url)
        assert "Failed [red]Bad\\[/]:smile:" in result.stdout

    def test_one_that_answers_nowhere_has_no_path_and_says_why(self, scripted: Any) -> None:
        message = "endpoint 'iris' belongs to default/other; choose another"
        rows = [
            deployment(url=None, status="Failed", reason="EndpointTaken", message=message),
            deployment(name="b", status="Stopped", reason="Stopped", message="set it to false"),
            deployment(name="c"),
            deployment(name="d", status="Pending", reason="", message=""),
        ]
        scripted.answer(200, {"deployments": rows})
        result = moorage("status", "--gateway", scripted.url)
        _, taken, stopped, ready, pending = result.stdout.splitlines()
        assert "Failed EndpointTaken" in taken
        assert taken.partition(" 1.23 ")[2].split(maxsplit=1)[0] == "-"
        assert taken.rstrip().endswith(f" {message}")
        assert stopped.split()[3:5] == ["Stopped", "1/1"]
        assert "set it to false" in stopped
        assert ready.split()[-1] == "/predict/iris"
        assert pending.split()[3:5] == ["Pending", "1/1"]

    def test_in_a_terminal_messages_stand_below_the_table(self, scripted: Any) -> None:
        words = "a sentence of so many words that no column of a terminal could ever have room"
        failed = deployment(status="Failed", reason="BadModel", message=words)
        scripted.answer(200, {"deployments": [failed, deployment(name="good")]})
        result = moorage(
            "status", "--gateway", scripted.url, FORCE_COLOR="1", COLUMNS="100", TERM="dumb"
        )
        assert result.stdout.splitlines()[-1] == f"default/iris: {words}"
        assert "MESSAGE" not in result.stdout

    def test_a_script_reads_what_the_gateway_said(self, scripted: Any) -> None:
        scripted.answer(200, {"deployments": [deployment()]})
        result = moorage("status", "--gateway", scripted.url, "--output", "json")
        assert json.loads(result.stdout) == [deployment()]

    def test_nothing_deployed_is_nothing_wrong(self, scripted: Any) -> None:
        scripted.answer(200, {"deployments": []})
        assert moorage("status", "--gateway", scripted.url).exit_code == 0

    def test_the_gateway_may_be_named_by_the_environment(self, scripted: Any) -> None:
        scripted.answer(200, {"deployments": []})
        assert moorage("status", MOORAGE_GATEWAY=scripted.url).exit_code == 0
        assert [asked[:2] for asked in scripted.asked] == [("GET", "/deployments")]


class TestPredict:
    """`moorage predict`."""

    def test_the_prediction_alone_is_printed(self, scripted: Any) -> None:
        scripted.answer(200, {"prediction": {"label": [2]}, "prediction_id": "x"})
        result = moorage("predict", "iris", "[1, 2.5]", "--gateway", scripted.url)
        assert json.loads(result.stdout) == {"label": [2]}
        assert json.loads(scripted.asked[0][3])["input"] == [1, 2.5]

    def test_a_script_gets_the_whole_answer(self, scripted: Any) -> None:
        answer = {"prediction": [1], "prediction_id": "x", "version": "3"}
        scripted.answer(200, answer)
        words = ["predict", "iris", "1", "--version", "3", "--gateway", scripted.url, "-o", "json"]
        assert json.loads(moorage(*words).stdout) == answer
        assert json.loads(scripted.asked[0][3])["version"] == "3"

    def test_the_input_may_come_from_a_file_or_from_standard_input(
        self, scripted: Any, tmp_path: Path
    ) -> None:
        scripted.answer(200, {"prediction": 1})
        file = tmp_path / "rows.json"
        file.write_text('{"x": [1]}', encoding="utf-8")
        moorage("predict", "m", f"@{file}", "--gateway", scripted.url)
        moorage("predict", "m", "-", "--gateway", scripted.url, stdin=b'{"x": [2]}')
        inputs = [json.loads(asked[3])["input"] for asked in scripted.asked]
        assert inputs == [{"x": [1]}, {"x": [2]}]

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ("[1,", "the input is not JSON"),
            ("NaN", "the input is not JSON"),
            ("", "the input is not JSON"),
            ("@nothing.json", "nothing.json: No such file or directory"),
            ("@.", "Is a directory"),
        ],
    )
    def test_an_input_that_is_none_never_leaves_this_machine(
        self, scripted: Any, value: str, words: str
    ) -> None:
        result = moorage("predict", "iris", value, "--gateway", scripted.url)
        assert result.exit_code == 4
        assert words in result.stderr
        assert scripted.asked == []


class TestPush:
    """`moorage push`."""

    STORED = {"uri": "models:/m/1", "sha256": "0" * 64, "size_bytes": 5, "name": "m"}  # noqa: RUF012

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        """Write a file to push."""
        file = tmp_path / "m.onnx"
        file.write_bytes(b"12345")
        return file

    def test_the_line_says_where_the_model_is_now(self, scripted: Any, model: Path) -> None:
        scripted.answer(201, self.STORED)
        result = moorage("push", model, "--name", "m", "--gateway", scripted.url)
        assert result.stdout == f"models:/m/1  sha256:{'0' * 64}  5 bytes\n"
        assert scripted.asked[0][1] == "/models?name=m"
        assert scripted.asked[0][3] == b"12345"

    def test_a_script_reads_the_record(self, scripted: Any, model: Path) -> None:
        scripted.answer(201, self.STORED)
        words = ["push", model, "--name", "m", "--version", "1", "--gateway", scripted.url]
        assert json.loads(moorage(*words, "-o", "json").stdout) == self.STORED

    def test_no_progress_is_drawn_where_nobody_looks(self, scripted: Any, model: Path) -> None:
        scripted.answer(201, self.STORED)
        assert moorage("push", model, "--name", "m", "--gateway", scripted.url).stderr == ""


@pytest.mark.parametrize(
    "words",
    [["status"], ["predict", "iris", "1"], ["push", __file__, "--name", "m"]],
    ids=["status", "predict", "push"],
)
class TestTrouble:
    """What every command does when the gateway is trouble."""

    @pytest.mark.parametrize(("status", "exit_code"), [(404, 5), (422, 3), (500, 1), (503, 6)])
    def test_an_error_is_one_line_and_the_status_of_its_kind(
        self, scripted: Any, words: list[str], status: int, exit_code: int
    ) -> None:
        scripted.answer(status, {"error": "because"})
        result = moorage(*words, "--gateway", scripted.url)
        assert (result.exit_code, result.stdout) == (exit_code, "")
        assert result.stderr == "error: because\n"

    def test_no_gateway_is_told_with_a_way_out(self, words: list[str]) -> None:
        result = moorage(*words, "--gateway", NO_GATEWAY)
        assert (result.exit_code, result.stdout) == (6, "")
        assert f"no gateway answers at {NO_GATEWAY}" in result.stderr
        assert "moorage up" in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_another_server_is_told(self, scripted: Any, words: list[str]) -> None:
        result = moorage(*words, "--gateway", scripted.url)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"error: {scripted.url} is no Moorage gateway: HTTP 200\n"

    def test_an_address_that_is_none_is_told(self, words: list[str]) -> None:
        result = moorage(*words, "--gateway", "http://host:port")
        assert result.exit_code == 4
        assert result.stderr.startswith("error: --gateway http://host:port: ")


class TestUp:
    """`moorage up`, as far as it goes without starting anything."""

    def test_a_bad_file_ends_it_before_anything_is_started(
        self, tmp_path: Path, write: Write, document: Document
    ) -> None:
        data = tmp_path / "data"
        result = moorage("up", write("a.yaml", document(replica=1)), "--data", data)
        assert (result.exit_code, result.stdout) == (4, "")
        assert "spec.replica" in result.stderr
        assert not data.exists()

    def test_a_data_folder_that_cannot_be_is_told(self, tmp_path: Path, write: Write) -> None:
        (tmp_path / "file").touch()
        result = moorage("up", write("a.yaml"), "--data", tmp_path / "file" / "data")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"error: --data {tmp_path}/file/data: ")
        assert len(result.stderr.splitlines()) == 1
