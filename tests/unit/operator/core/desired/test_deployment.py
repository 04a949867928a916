"""The Deployment: what the restricted Pod Security Standard and a rollout ask of it."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api import keys
from moorage_api.v1alpha1 import ModelDeployment
from moorage_operator.core import runtime_flags
from moorage_operator.core.desired import deployment
from moorage_operator.core.desired.manifest import HTTP_PORT, Defaults
from moorage_runtime.settings import Settings
from moorage_serving import command

Make = Callable[..., ModelDeployment]

#: Volume types that the restricted standard allows.
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def pod(resource: ModelDeployment, defaults: Defaults | None = None) -> dict[str, Any]:
    built = deployment.build(resource, defaults or Defaults())
    found: dict[str, Any] = built["spec"]["template"]["spec"]
    return found


@given(
    replicas=st.integers(0, 5),
    stopped=st.booleans(),
    warmup=st.booleans(),
    cpu=st.none() | st.integers(1, 8),
    registry=st.sampled_from(["", "http://gateway"]),
)
def test_every_pod_passes_the_restricted_pod_security_standard(
    make: Make, replicas: int, stopped: bool, warmup: bool, cpu: int | None, registry: str
) -> None:
    # Source: "Pod Security Standards" of the Kubernetes documentation, profile Restricted.
    limits = {} if cpu is None else {"limits": {"cpu": cpu}}
    spec = pod(
        make(replicas=replicas, stopped=stopped, runtime={"warmup": warmup}, resources=limits),
        Defaults(registry=registry),
    )
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for volume in spec["volumes"]:
        assert volume.keys() - {"name"} <= VOLUMES
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"sysctls", "seLinuxOptions", "windowsOptions"} & context.keys()
    for container in spec["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
        # Nothing that the pod's context says is taken back.
        assert own.keys() <= {"allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem"}
        assert all("hostPort" not in port for port in container["ports"])
    assert spec["automountServiceAccountToken"] is False
    assert "initContainers" not in spec


@pytest.mark.parametrize(
    ("spec", "replicas"),
    [
        ({}, 1),
        ({"replicas": 3}, 3),
        ({"replicas": 0}, 0),
        ({"replicas": 3, "stopped": True}, 0),
    ],
    ids=["default", "three", "none", "stopped"],
)
def test_the_replicas_are_those_asked_for_and_none_when_stopped(
    make: Make, spec: dict[str, Any], replicas: int
) -> None:
    assert deployment.build(make(**spec), Defaults())["spec"]["replicas"] == replicas


def test_a_rollout_takes_nothing_away_before_the_new_serves(make: Make) -> None:
    strategy = deployment.build(make(), Defaults())["spec"]["strategy"]
    assert strategy["type"] == "RollingUpdate"
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_runtime_in_the_pod_understands_its_arguments(make: Make) -> None:
    (container,) = pod(make("fraud", version="3"))["containers"]
    settings = command.parse(Settings, container["args"])
    assert (settings.name, settings.version) == ("fraud", "3")
    assert settings.http_port == HTTP_PORT == container["ports"][0]["containerPort"]
    assert container["args"][: len(runtime_flags.build(make("fraud", version="3")))] == (
        runtime_flags.build(make("fraud", version="3"))
    )


def test_the_probes_ask_paths_of_the_runtime_at_its_port(make: Make) -> None:
    (container,) = pod(make())["containers"]
    (port,) = container["ports"]
    for probe, path in (
        ("startupProbe", "/v2/health/ready"),
        ("readinessProbe", "/v2/health/ready"),
        ("livenessProbe", "/v2/health/live"),
    ):
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}


def test_a_pod_outlives_the_requests_that_the_runtime_finishes(make: Make) -> None:
    settings = command.parse(Settings, ["--model", "file:/m.onnx"])
    assert pod(make())["terminationGracePeriodSeconds"] > settings.grace_s


@pytest.mark.parametrize("registry", ["", "http://moorage-gateway.moorage.svc"])
def test_the_registry_reaches_the_runtime_by_its_environment(make: Make, registry: str) -> None:
    (container,) = pod(make(), Defaults(registry=registry))["containers"]
    expected = [{"name": keys.ENV_REGISTRY, "value": registry}] if registry else []
    assert container.get("env", []) == expected


def test_the_image_is_that_of_the_cluster(make: Make) -> None:
    (container,) = pod(make(), Defaults(image="mine:7"))["containers"]
    assert container["image"] == "mine:7"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, None),
        ({"limits": {"cpu": 2}}, {"limits": {"cpu": "2"}}),
        (
            {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi", "nvidia.com/gpu": 1}},
            {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi", "nvidia.com/gpu": "1"}},
        ),
    ],
    ids=["none", "limits", "both"],
)
def test_resources_are_passed_on_as_strings(
    make: Make, resources: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    (container,) = pod(make(resources=resources))["containers"]
    assert container.get("resources") == expected
