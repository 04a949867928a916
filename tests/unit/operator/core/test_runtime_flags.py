"""A runtime's flags: what a ModelDeployment says, spelt as `moorage-runtime` takes it."""

from collections.abc import Callable
from typing import Any

import pytest

from moorage_api.v1alpha1 import ModelDeployment
from moorage_operator.core import runtime_flags
from moorage_runtime.settings import Settings
from moorage_serving import command

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def read(resource: ModelDeployment) -> Settings:
    """Read the flags as the runtime does."""
    return command.parse(Settings, runtime_flags.build(resource))


def test_the_runtime_reads_what_the_resource_says(make: Callable[..., ModelDeployment]) -> None:
    settings = read(
        make(
            "fraud",
            model={"uri": "s3://models/fraud/3", "version": "v3.1", "sha256": SHA256},
            runtime={
                "batching": {"maxBatchSize": 8, "maxDelayMs": 5},
                "threads": {"intraOp": 4, "interOp": 2},
                "warmup": False,
            },
        )
    )
    assert settings.model == "s3://models/fraud/3"
    assert (settings.name, settings.version, settings.sha256) == ("fraud", "v3.1", SHA256)
    assert (settings.max_batch_size, settings.max_delay_ms) == (8, 5)
    assert (settings.intra_op_threads, settings.inter_op_threads) == (4, 2)
    assert settings.warmup is False


def test_a_resource_that_says_little_has_the_defaults_of_the_runtime(
    make: Callable[..., ModelDeployment],
) -> None:
    said = read(make("iris"))
    bare = command.parse(Settings, ["--model", "file:/models/iris.onnx", "--name", "iris"])
    assert said == bare


def test_the_version_of_a_registered_model_is_that_of_its_address(
    make: Callable[..., ModelDeployment],
) -> None:
    assert read(make("iris", model={"uri": "models:/flowers/12"})).version == "12"


@pytest.mark.parametrize(
    ("spec", "threads"),
    [
        pytest.param({"resources": {"limits": {"cpu": 2}}}, 2, id="whole limit"),
        pytest.param({"resources": {"limits": {"cpu": "1500m"}}}, 2, id="rounded up"),
        pytest.param({"resources": {"limits": {"cpu": "100m"}}}, 1, id="at least one"),
        pytest.param({"resources": {"limits": {"cpu": "1e1"}}}, 10, id="with an exponent"),
        pytest.param({"resources": {"requests": {"cpu": 4}}}, 0, id="a request is no limit"),
        pytest.param(
            {"resources": {"limits": {"cpu": 2}}, "runtime": {"threads": {"intraOp": 3}}},
            3,
            id="what is said goes first",
        ),
        pytest.param({}, 0, id="nothing said"),
    ],
)
def test_threads_follow_the_cpu_limit(
    make: Callable[..., ModelDeployment], spec: dict[str, Any], threads: int
) -> None:
    assert read(make(**spec)).intra_op_threads == threads


def test_the_list_does_not_depend_on_how_the_resource_was_spelt(
    make: Callable[..., ModelDeployment],
) -> None:
    spelt = make(
        replicas=1, stopped=False, runtime={"warmup": True, "batching": {"maxBatchSize": 64}}
    )
    assert runtime_flags.build(spelt) == runtime_flags.build(make())


@pytest.mark.parametrize(
    "spec",
    [{"replicas": 7}, {"endpoint": "other"}, {"stopped": True}, {"logging": {"enabled": False}}],
    ids=lambda spec: next(iter(spec)),
)
def test_what_does_not_concern_a_process_starts_no_new_generation(
    make: Callable[..., ModelDeployment], spec: dict[str, Any]
) -> None:
    assert runtime_flags.build(make(**spec)) == runtime_flags.build(make())
