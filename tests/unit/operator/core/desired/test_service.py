"""The Service: it reaches the port that the pods name."""

from collections.abc import Callable

from moorage_api.v1alpha1 import ModelDeployment
from moorage_operator.core.desired import deployment, service
from moorage_operator.core.desired.manifest import Defaults


def test_the_service_points_at_the_port_that_the_container_names(
    make: Callable[..., ModelDeployment],
) -> None:
    (port,) = service.build(make())["spec"]["ports"]
    pod = deployment.build(make(), Defaults())["spec"]["template"]["spec"]
    assert port["targetPort"] in [named["name"] for named in pod["containers"][0]["ports"]]
    assert port["port"] == 80


def test_the_service_is_named_as_the_deployment(make: Callable[..., ModelDeployment]) -> None:
    built = service.build(make("fraud", namespace="payments"))
    assert (built["metadata"]["name"], built["metadata"]["namespace"]) == ("fraud", "payments")


def test_a_stopped_resource_keeps_its_service(make: Callable[..., ModelDeployment]) -> None:
    assert service.build(make(stopped=True)) == service.build(make())
