"""`moorage up` while it runs: what it makes of files that change, models that fail, and crashes."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest

from moorage_api import keys

Until = Callable[[Callable[[], Any], str], Any]


def test_the_ready_line_is_all_of_standard_output(shared: Any) -> None:
    assert shared.stdout == f"ready {shared.url}\n"


def test_an_example_answers_at_its_endpoint(shared: Any) -> None:
    answer = shared.predict("iris")
    assert answer.status_code == 200
    assert answer.json()["model_name"] == "iris"
    shown = shared.moorage("predict", "iris", "[5.1, 3.5, 1.4, 0.2]")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "label" in shown.stdout


def test_a_new_file_in_the_folder_is_served(shared: Any) -> None:
    shared.write("new")
    shared.becomes("new", status="Ready", version="1")
    assert shared.predict("new").status_code == 200
    shared.told("Ready", "default/new", "/predict/new")


def test_a_changed_version_is_picked_up_while_it_serves(shared: Any) -> None:
    shared.write("changed")
    shared.becomes("changed", status="Ready")
    old = shared.runtimes("changed")
    shared.copy_model("changed.onnx", "model-2.onnx")
    shared.write("changed", model={"uri": "file:iris/changed.onnx", "version": "2"})
    while shared.deployments()["changed"]["version"] != "2":
        # One of the two answers at every moment.
        assert shared.predict("changed").json()["version"] in ("1", "2")
    shared.becomes("changed", status="Ready", version="2")
    assert shared.predict("changed").json()["version"] == "2"
    shared.wait_for_end_of(old)
    assert len(shared.runtimes("changed")) == 1


@pytest.mark.parametrize(
    ("name", "uri", "file"),
    [
        ("retrained", "file:iris/retrained.onnx", "retrained.onnx"),
        ("retrained-folder", "file:iris/folder", "folder/1/model.onnx"),
    ],
    ids=["file", "folder"],
)
def test_a_changed_model_file_is_picked_up_under_the_same_yaml(
    shared: Any, until: Until, name: str, uri: str, file: str
) -> None:
    (shared.files / "iris" / file).parent.mkdir(parents=True, exist_ok=True)
    shared.copy_model(file)
    shared.write(name, model={"uri": uri})
    shared.becomes(name, status="Ready")
    before = shared.observed(name).status.model.sha256
    answer = shared.predict(name).json()["prediction"]
    shared.copy_model(file, "model-2.onnx")
    until(
        lambda: shared.observed(name).status.model.sha256 != before,
        "the other file is served",
    )
    shared.becomes(name, status="Ready")
    assert shared.predict(name).json()["prediction"] != answer


def test_a_bad_edit_leaves_what_was_there_and_says_so(shared: Any) -> None:
    file = shared.write("edited")
    shared.becomes("edited", status="Ready")
    running = shared.runtimes("edited")
    file.write_text("kind: ModelDeployment\nspec: {model: [", encoding="utf-8")
    shared.told("warning", str(file), "is not YAML", "what the file said before holds")
    assert shared.predict("edited").status_code == 200
    assert shared.runtimes("edited") == running
    shared.write("edited", replicas=1, endpoint="edited-again")
    shared.becomes("edited", status="Ready", endpoint="edited-again")
    # A new endpoint is the gateway's business: the same process serves.
    assert shared.runtimes("edited") == running


def test_a_removed_file_retires_its_deployment(shared: Any, until: Until) -> None:
    file = shared.write("removed")
    shared.becomes("removed", status="Ready")
    running = shared.runtimes("removed")
    assert len(running) == 1
    file.unlink()
    until(lambda: "removed" not in shared.deployments(), "it is gone")
    shared.wait_for_end_of(running)
    assert shared.predict("removed").status_code == 404
    assert shared.predict("iris").status_code == 200


def test_a_stopped_deployment_frees_its_process_and_comes_back(shared: Any) -> None:
    shared.write("resting")
    shared.becomes("resting", status="Ready")
    running = shared.runtimes("resting")
    shared.write("resting", stopped=True)
    shared.becomes("resting", status="Stopped")
    shared.told("Stopped", "default/resting  set spec.stopped to false")
    shared.wait_for_end_of(running)
    assert shared.predict("resting").status_code == 503
    shared.write("resting")
    shared.becomes("resting", status="Ready")
    assert shared.predict("resting").status_code == 200


class TestBadModels:
    """A model that can't be served says why, and nothing else suffers."""

    @pytest.mark.parametrize(
        ("name", "reason", "words"),
        [
            ("not-onnx", "BadModel", "check the file"),
            ("too-new", "UnsupportedOpset", "export the model for an older opset"),
            ("other-sum", "ChecksumMismatch", "correct spec.model.sha256"),
            ("missing", "DownloadFailed", "check spec.model.uri"),
        ],
    )
    def test_status_shows_the_reason_while_others_serve(
        self, shared: Any, name: str, reason: str, words: str
    ) -> None:
        model = {"uri": f"file:iris/{name}.onnx"}
        target = shared.files / "iris" / f"{name}.onnx"
        if name == "not-onnx":
            target.write_bytes(b"this is no model")
        elif name == "too-new":
            proto = onnx.load(shared.files / "iris" / "model.onnx")
            proto.opset_import[0].version = 999
            onnx.save(proto, target)
        elif name == "other-sum":
            shared.copy_model(target.name)
            model["sha256"] = "0" * 64
        file = shared.write(name, model=model)
        try:
            entry = shared.becomes(name, status="Failed", reason=reason)
            assert words in entry["message"]
            shared.told("Failed", f"default/{name}", reason)
            shown = shared.moorage("status")
            assert shown.returncode == 1
            (line,) = (line for line in shown.stdout.splitlines() if f"default/{name} " in line)
            assert f"Failed {reason}" in line
            assert shared.predict(name).status_code == 503
            assert shared.predict("iris").status_code == 200
        finally:
            file.unlink()

    def test_one_that_replaces_a_good_one_leaves_it_serving_and_says_so(self, shared: Any) -> None:
        shared.write("replaced")
        shared.becomes("replaced", status="Ready")
        (shared.files / "iris" / "broken.onnx").write_bytes(b"no")
        shared.write("replaced", model={"uri": "file:iris/broken.onnx", "version": "2"})
        entry = shared.becomes("replaced", status="Degraded", reason="BadModel", version="1")
        assert "version 1 still answers" in entry["message"]
        assert shared.predict("replaced").json()["version"] == "1"
        shared.write("replaced", model={"version": "3"})
        shared.becomes("replaced", status="Ready", version="3")

    def test_one_that_is_mended_is_served(self, shared: Any) -> None:
        target = shared.files / "iris" / "mended.onnx"
        target.write_bytes(b"half of a model")
        shared.write("mended", model={"uri": "file:iris/mended.onnx"})
        shared.becomes("mended", reason="BadModel")
        shared.copy_model("mended.onnx")
        shared.becomes("mended", status="Ready")


class TestCrashes:
    """What dies is started again."""

    def test_a_killed_runtime_is_started_again_and_serves(self, shared: Any, until: Until) -> None:
        shared.write("crashing")
        shared.becomes("crashing", status="Ready")
        (pid,) = shared.runtimes("crashing")
        os.kill(pid, signal.SIGKILL)
        shared.told("default/crashing", "CrashLoop", "signal 9")
        until(lambda: shared.runtimes("crashing") - {pid}, "another is started")
        shared.becomes("crashing", status="Ready")
        assert shared.predict("crashing").status_code == 200

    def test_of_two_replicas_the_other_answers_meanwhile(self, shared: Any) -> None:
        shared.write("paired", replicas=2)
        shared.becomes("paired", status="Ready", ready_replicas=2)
        both = shared.runtimes("paired")
        os.kill(min(both), signal.SIGKILL)
        shared.becomes("paired", status="Degraded", reason="PartlyReady")
        assert shared.predict("paired").status_code == 200
        shared.becomes("paired", status="Ready", ready_replicas=2)

    def test_a_killed_gateway_is_started_again_at_its_address(
        self, shared: Any, until: Until
    ) -> None:
        (pid,) = shared.children("moorage_gateway")
        runtimes = shared.children("moorage_runtime")
        os.kill(pid, signal.SIGKILL)
        shared.told("warning", "the gateway ended with signal 9 (SIGKILL); starting it again")
        until(lambda: shared.deployments(), "it answers again")
        shared.becomes("iris", status="Ready")
        assert shared.predict("iris").status_code == 200
        assert shared.runtimes("iris") <= runtimes


class TestReplicas:
    """`spec.replicas` processes, each of which answers."""

    def test_two_replicas_are_two_processes_that_both_answer(
        self, shared: Any, until: Until
    ) -> None:
        shared.write("twice", replicas=2)
        entry = shared.becomes("twice", status="Ready", ready_replicas=2)
        assert entry["replicas"] == 2
        assert len(shared.runtimes("twice")) == 2
        addresses = shared.observed("twice").addresses
        assert len(set(addresses)) == 2
        row = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}
        for address in addresses:
            url = f"{address}/v2/models/twice/infer"
            answer = shared.client.post(url, json={"inputs": [row]})
            assert answer.status_code == 200, answer.text

        def runs(address: str) -> float:
            for line in shared.client.get(f"{address}/metrics").text.splitlines():
                if line.startswith("moorage_model_runs_total"):
                    return float(line.split()[-1])
            raise AssertionError("no such metric")

        before = [runs(address) for address in addresses]

        def both_answered() -> bool:
            # The gateway asks the one that is less busy, so some must be busy.
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: shared.predict("twice").status_code, range(32)))
            assert set(answers) == {200}
            return all(runs(a) > early for a, early in zip(addresses, before, strict=True))

        until(both_answered, "the gateway has asked both")

    def test_they_follow_the_number_up_and_down(self, shared: Any, until: Until) -> None:
        shared.write("scaled")
        shared.becomes("scaled", status="Ready")
        (first,) = shared.runtimes("scaled")
        shared.write("scaled", replicas=2)
        shared.becomes("scaled", status="Ready", ready_replicas=2)
        shared.write("scaled", replicas=1)
        until(lambda: shared.runtimes("scaled") == {first}, "the second has ended")
        shared.becomes("scaled", status="Ready", ready_replicas=1)
        shared.write("scaled", replicas=0)
        shared.becomes("scaled", status="Stopped", reason="ScaledToZero")
        shared.wait_for_end_of({first})


def test_of_two_files_that_claim_one_endpoint_the_first_keeps_it(shared: Any, until: Until) -> None:
    first = shared.write("claims-first", endpoint="claimed")
    shared.becomes("claims-first", status="Ready")
    second = shared.write("claims-second", endpoint="claimed")
    shared.told("warning", str(second), "endpoint 'claimed' is also claimed by", str(first))
    assert shared.predict("claimed").status_code == 200
    assert "claims-second" not in shared.deployments()
    first.unlink()
    shared.becomes("claims-second", status="Ready")
    until(lambda: "claims-first" not in shared.deployments(), "the first is gone")
    assert shared.predict("claimed").status_code == 200


class TestRegistry:
    """Models that are pushed, and deployments that the gateway makes."""

    def test_a_pushed_model_is_deployed_by_yaml(self, shared: Any) -> None:
        file = shared.files / "iris" / "model.onnx"
        pushed = shared.moorage("push", str(file), "--name", "flowers")
        assert pushed.returncode == 0, pushed.stderr
        assert pushed.stdout.startswith("models:/flowers/1  sha256:")
        shared.write("by-yaml", model={"uri": "models:/flowers/1"})
        shared.becomes("by-yaml", status="Ready", model_name="flowers")
        assert shared.predict("by-yaml").status_code == 200

    def test_a_pushed_model_is_deployed_by_the_gateway(self, shared: Any, until: Until) -> None:
        file = shared.files / "iris" / "model.onnx"
        pushed = shared.moorage("push", str(file), "--name", "lilies", "--version", "7")
        assert pushed.returncode == 0, pushed.stderr
        again = shared.moorage("push", str(file), "--name", "lilies", "--version", "7")
        assert (again.returncode, again.stdout) == (0, pushed.stdout)
        body = {"model_name": "lilies", "version": "7", "endpoint_name": "lilies"}
        answer = shared.client.post(f"{shared.url}/deployments/deploy", json=body, timeout=120)
        assert answer.status_code == 201, answer.text
        assert shared.predict("lilies").json()["version"] == "7"
        assert shared.moorage("predict", "lilies", "[1, 2, 3, 4]").returncode == 0
        running = shared.runtimes("lilies")
        body = {"endpoint_name": "lilies"}
        answer = shared.client.post(f"{shared.url}/deployments/undeploy", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        until(lambda: "lilies" not in shared.deployments(), "it is gone")
        shared.wait_for_end_of(running)

    def test_what_was_undeployed_stays_so_until_its_own_document_changes(
        self, shared: Any, until: Until
    ) -> None:
        shared.write("withdrawn")
        shared.becomes("withdrawn", status="Ready")
        body = {"endpoint_name": "withdrawn"}
        answer = shared.client.post(f"{shared.url}/deployments/undeploy", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        until(lambda: "withdrawn" not in shared.deployments(), "it is gone")
        shared.write("another")
        shared.becomes("another", status="Ready")
        assert "withdrawn" not in shared.deployments()
        assert shared.predict("withdrawn").status_code == 404
        shared.write("withdrawn", model={"version": "2"})
        shared.becomes("withdrawn", status="Ready", version="2")
        assert shared.predict("withdrawn").status_code == 200

    def test_a_version_never_changes(self, shared: Any) -> None:
        iris = shared.files / "iris"
        shared.copy_model("second.onnx", "model-2.onnx")
        words = ("--name", "tulips", "--version", "1")
        assert shared.moorage("push", str(iris / "model.onnx"), *words).returncode == 0
        other = shared.moorage("push", str(iris / "second.onnx"), *words)
        assert (other.returncode, other.stdout) == (4, "")
        assert other.stderr.startswith("error: ")

    def test_what_is_no_model_is_refused(self, shared: Any) -> None:
        pushed = shared.moorage("push", __file__, "--name", "python")
        assert (pushed.returncode, pushed.stdout) == (3, "")
        assert len(pushed.stderr.splitlines()) == 1

    def test_a_model_that_nobody_serves_is_not_found(self, shared: Any) -> None:
        asked = shared.moorage("predict", "nobody", "1")
        assert (asked.returncode, asked.stdout) == (5, "")
        assert "'nobody' is not found" in asked.stderr

    def test_an_input_that_does_not_fit_is_the_senders_fault(self, shared: Any) -> None:
        asked = shared.moorage("predict", "iris", '["a"]')
        assert (asked.returncode, asked.stdout) == (4, "")
        assert len(asked.stderr.splitlines()) == 1

    def test_what_the_gateway_made_outlives_up(
        self, start: Callable[..., Any], files: Path
    ) -> None:
        first = start()
        first.ready()
        file = str(files / "iris" / "model.onnx")
        assert first.moorage("push", file, "--name", "kept").returncode == 0
        body = {"model_name": "kept", "version": "1", "endpoint_name": "kept"}
        answer = first.client.post(f"{first.url}/deployments/deploy", json=body, timeout=120)
        assert answer.status_code == 201, answer.text
        assert (
            f"source: {keys.SOURCE_API}"
            in (first.data / "deployments/default.kept.yaml").read_text()
        )
        assert first.end() == 0
        (files / "iris.yaml").unlink()
        file = start(str(first.write("other"))).ready()
        deployments = file.deployments()
        assert {name: item["status"] for name, item in deployments.items()} == {
            "kept": "Ready",
            "other": "Ready",
        }
        assert file.predict("kept").status_code == 200


def test_ready_is_said_once_what_was_in_the_way_is_gone(
    start: Callable[..., Any], files: Path
) -> None:
    (files / "iris").mkdir()
    (files / "iris" / "bad.onnx").write_bytes(b"no")
    bad = (files / "iris.yaml").read_text().replace("iris/model.onnx", "iris/bad.onnx")
    (files / "bad.yaml").write_text(bad.replace("name: iris", "name: bad"))
    up = start()
    up.told("Failed", "default/bad", "BadModel")
    up.told("Ready", "default/iris")
    up.told("warning", f"not ready: default/bad failed; everything else serves at {up.url}; ")
    assert up.stdout == ""
    (files / "bad.yaml").unlink()
    up.ready()
    assert httpx.get(f"{up.url}/health/ready", trust_env=False).status_code == 200


class TestDatabase:
    """Models serve whatever the database does, and whoever started `moorage up` hears of it."""

    def test_one_that_cannot_be_reached_is_told_and_so_is_what_was_lost(
        self, start: Callable[..., Any], files: Path
    ) -> None:
        database = "postgresql://someone:secret@127.0.0.1:1/x"
        up = start(str(files), "--database", database).ready()
        up.told("warning", "predictions cannot be stored: ", "127.0.0.1:1")
        for _ in range(3):
            assert up.predict("iris").status_code == 200
        assert up.end() == 0
        up.told("warning", "3 predictions were not stored")
        assert "secret" not in up.stderr
        assert "secret" not in (up.data / "logs" / "gateway.log").read_text()

    def test_one_that_comes_back_is_told(
        self, start: Callable[..., Any], files: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "folder"
        folder.touch()
        up = start(str(files), "--database", f"sqlite:///{folder}/predictions.db").ready()
        up.told("warning", "predictions cannot be stored: ", str(folder))
        assert up.predict("iris").status_code == 200
        folder.unlink()
        up.told("warning", "predictions are stored again")
        assert up.end() == 0
        assert "were not stored" not in up.stderr

    @pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
    def test_its_password_is_on_no_command_line_and_no_runtime_has_it(
        self, start: Callable[..., Any], files: Path
    ) -> None:
        database = "postgresql://someone:secret@127.0.0.1:1/x"
        up = start(environment={"MOORAGE_DATABASE": database}).ready()
        children = up.children()
        assert len(children) == 2
        for pid in children:
            assert b"secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        (gateway,) = up.children("moorage_gateway")
        (runtime,) = up.runtimes("iris")
        assert b"secret" in Path(f"/proc/{gateway}/environ").read_bytes()
        assert b"secret" not in Path(f"/proc/{runtime}/environ").read_bytes()
