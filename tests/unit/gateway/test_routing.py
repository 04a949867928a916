"""Which deployment answers which request."""

from collections.abc import Callable
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api.errors import (
    InvalidName,
    MoorageError,
    NotReady,
    Stopped,
    UnknownEndpoint,
    UnknownModel,
    UnknownVersion,
)
from moorage_api.names import Qualified
from moorage_api.reasons import Reason
from moorage_api.signature import Signature, TensorSpec
from moorage_gateway.routing import Route, Table, route_of

MakeRoute = Callable[..., Route]
ROWS = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))


@pytest.fixture
def table(make_route: MakeRoute, now: Any) -> Table:
    """A table in which every kind of name leads somewhere else."""
    late = now + timedelta(hours=1)
    return Table(
        [
            make_route("iris-2", model="iris", version="2", endpoint="flowers", ready_since=now),
            make_route("iris-10", model="iris", version="10", ready_since=now),
            make_route("iris-11", model="iris", version="11", addresses=()),
            make_route("fraud", endpoint="classifier_prod", version="3"),
            make_route("fraud", "payments", endpoint="classifier_prod", version="4"),
            make_route("churn", "crm", version="rc1"),
            make_route("twin-a", model="twin", version="1", ready_since=now),
            make_route("twin-b", model="twin", version="1", ready_since=late),
        ]
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        pytest.param("flowers", "default/iris-2", id="its endpoint"),
        pytest.param("default/flowers", "default/iris-2", id="its endpoint with its namespace"),
        pytest.param("iris-10", "default/iris-10", id="the name where no endpoint is given"),
        pytest.param("payments/classifier_prod", "payments/fraud", id="a namespace decides"),
        pytest.param("churn", "crm/churn", id="a bare name in another namespace"),
    ],
)
def test_an_endpoint_is_found(table: Table, name: str, found: str) -> None:
    assert str(table.endpoint(name).key) == found


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        pytest.param("iris", UnknownEndpoint, "flowers", id="a model is no endpoint"),
        pytest.param("iris-2", UnknownEndpoint, "flowers", id="a name with another endpoint"),
        pytest.param("crm/flowers", UnknownEndpoint, "flowers", id="another namespace"),
        pytest.param("FLOWERS", UnknownEndpoint, "flowers", id="another case"),
        pytest.param("", UnknownEndpoint, "flowers", id="nothing"),
        pytest.param(
            "classifier_prod",
            InvalidName,
            "default/fraud, payments/fraud",
            id="two namespaces have it",
        ),
    ],
)
def test_an_endpoint_that_is_not_found_says_what_there_is(
    table: Table, name: str, error: type[MoorageError], words: str
) -> None:
    with pytest.raises(error, match=words):
        table.endpoint(name)


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        pytest.param("iris-2", "", "default/iris-2", id="a deployment by its name"),
        pytest.param("iris-11", "", "default/iris-11", id="its name, ready or not"),
        pytest.param("iris", "", "default/iris-10", id="a model: 2 < 10, ready before not ready"),
        pytest.param("iris", "2", "default/iris-2", id="a model's version"),
        pytest.param("iris", "11", "default/iris-11", id="a version that is not ready"),
        pytest.param("default/iris", "2", "default/iris-2", id="a model with its namespace"),
        pytest.param("payments/fraud", "", "payments/fraud", id="a deployment with its namespace"),
        pytest.param("churn", "", "crm/churn", id="a bare name in another namespace"),
        pytest.param("twin", "", "default/twin-b", id="equal versions: the last to become ready"),
        pytest.param("twin", "1", "default/twin-b", id="equal versions, named"),
    ],
)
def test_a_model_is_found(table: Table, name: str, version: str, found: str) -> None:
    assert str(table.model(name, version).key) == found


@pytest.mark.parametrize(
    ("name", "version", "error", "words"),
    [
        pytest.param("rose", "", UnknownModel, "Request for unknown model.*iris-2", id="no model"),
        pytest.param("rose", "1", UnknownModel, "'rose'", id="no model of any version"),
        pytest.param("iris", "3", UnknownVersion, "there are: 2, 10, 11", id="no such version"),
        pytest.param("iris-2", "10", UnknownVersion, "there are: 2", id="another's version"),
        pytest.param("flowers", "", UnknownModel, "'flowers'", id="an endpoint is no model"),
        pytest.param("fraud", "", InvalidName, "payments/fraud", id="two namespaces have it"),
        pytest.param("fraud", "3", InvalidName, "default/fraud", id="a version does not decide"),
        pytest.param("crm/fraud", "", UnknownModel, "'crm/fraud'", id="another namespace"),
    ],
)
def test_a_model_that_is_not_found_says_what_there_is(
    table: Table, name: str, version: str, error: type[MoorageError], words: str
) -> None:
    with pytest.raises(error, match=words):
        table.model(name, version)


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        pytest.param("iris", "", "default/iris-10", id="the latest that is ready"),
        pytest.param("iris", "11", "default/iris-11", id="a version"),
        pytest.param("flowers", "", "default/iris-2", id="an endpoint"),
        pytest.param("iris-2", "", "default/iris-2", id="a deployment"),
    ],
)
def test_the_latest_is_found(table: Table, name: str, version: str, found: str) -> None:
    assert str(table.latest(name, version).key) == found


def test_the_latest_goes_by_the_model_where_a_deployment_has_its_name(
    make_route: MakeRoute,
) -> None:
    table = Table(
        [make_route("iris", version="1"), make_route("iris-9", model="iris", version="9")]
    )
    assert table.latest("iris").version == "9"
    # A serving protocol's path names the deployment instead.
    assert table.model("iris").version == "1"


@given(st.permutations([("1", True), ("2", True), ("10", True), ("10.1", False), ("rc", False)]))
def test_the_order_of_making_does_not_change_the_latest(order: list[tuple[str, bool]]) -> None:
    routes = [
        Route(
            Qualified("default", f"m-{version.replace('.', '-')}"),
            endpoint=f"m-{version}",
            model="m",
            version=version,
            signature=ROWS if ready else None,
            addresses=("http://host:1",) if ready else (),
        )
        for version, ready in order
    ]
    assert Table(routes).latest("m").version == "10"


def test_where_two_claim_an_endpoint_the_first_has_it(make_route: MakeRoute) -> None:
    for first, second in permutations(["a", "b"]):
        table = Table([make_route(first, endpoint="e"), make_route(second, endpoint="e")])
        assert table.endpoint("e").key.name == first
        assert table.endpoint("default/e").key.name == first


def test_who_lost_its_endpoint_does_not_take_it_by_being_first(make_route: MakeRoute) -> None:
    loser = make_route("a", endpoint="e", reason=Reason.ENDPOINT_TAKEN, addresses=())
    table = Table([loser, make_route("b", endpoint="e")])
    assert table.endpoint("e").key.name == "b"
    assert table.model("a") is loser
    assert Table([loser]).endpoints == []


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param("default/iris-2", "/predict/flowers", id="a bare endpoint"),
        pytest.param("crm/churn", "/predict/churn", id="in another namespace"),
        pytest.param(
            "payments/fraud", "/predict/payments/classifier_prod", id="one that two namespaces have"
        ),
    ],
)
def test_the_path_of_a_deployment_leads_to_it(table: Table, name: str, path: str) -> None:
    route = table.model(name)
    assert table.path(route) == path
    assert table.endpoint(path.removeprefix("/predict/")) is route


def test_a_deployment_whose_endpoint_another_has_is_at_no_path(make_route: MakeRoute) -> None:
    first, second = make_route("a", endpoint="e"), make_route("b", endpoint="e")
    table = Table([first, second])
    assert (table.path(first), table.path(second)) == ("/predict/e", None)


@pytest.mark.parametrize(
    ("names", "host", "found"),
    [
        pytest.param(["default/a"], "", "default/a", id="the only one"),
        pytest.param(["default/a"], "gateway:8080", "default/a", id="the only one, any host"),
        pytest.param(["default/a", "default/b"], "b", "default/b", id="the host's name"),
        pytest.param(["default/a", "default/b"], "b:8080", "default/b", id="with a port"),
        pytest.param(["default/a", "x/b"], "b.x.svc.cluster.local", "x/b", id="its first label"),
    ],
)
def test_a_path_without_a_name_finds_its_deployment(
    make_route: MakeRoute, names: list[str], host: str, found: str
) -> None:
    table = Table([make_route(name, space) for space, name in (n.split("/") for n in names)])
    assert str(table.only(host).key) == found


@pytest.mark.parametrize(
    ("names", "host", "words"),
    [
        pytest.param([], "", "there are: none", id="nothing is deployed"),
        pytest.param(["a/x", "b/x"], "gateway", "a/x, b/x", id="a host that names nothing"),
        pytest.param(["a/x", "b/x"], "x", "a/x, b/x", id="a host that names two"),
        pytest.param(["a/x", "a/y"], "", "a/x, a/y", id="no host"),
    ],
)
def test_a_path_without_a_name_lists_the_choices(
    make_route: MakeRoute, names: list[str], host: str, words: str
) -> None:
    table = Table([make_route(name, space) for space, name in (n.split("/") for n in names)])
    with pytest.raises(InvalidName, match=words):
        table.only(host)


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        pytest.param({"stopped": True}, Stopped, "spec.stopped", id="stopped"),
        pytest.param({"addresses": ()}, NotReady, "no runtime answers yet", id="no runtime"),
        pytest.param(
            {"signature": None, "reason": "BadModel", "message": "not ONNX"},
            NotReady,
            "BadModel: not ONNX",
            id="the status says why",
        ),
    ],
)
def test_a_route_that_cannot_answer_says_why(
    make_route: MakeRoute, parts: dict[str, Any], error: type[MoorageError], words: str
) -> None:
    route = make_route("m", **parts)
    assert not route.is_ready
    with pytest.raises(error, match=words):
        route.require_ready()


def test_a_route_is_read_out_of_a_resource(making: Any, signatures: Any, now: Any) -> None:
    asked = making.resource(
        "fraud",
        "payments",
        model={"uri": "models:/fraud-model/7"},
        endpoint="classifier_prod",
        replicas=3,
        logging={"enabled": False, "samplePercent": 25},
    )
    seen = making.observation(asked, signatures["classifier"], message="3 of 3")
    route = route_of(asked.model_copy(update={"status": seen.status}), ["http://a", "http://b"])
    assert route == Route(
        key=Qualified("payments", "fraud"),
        endpoint="classifier_prod",
        model="fraud-model",
        version="7",
        sha256="0" * 64,
        signature=signatures["classifier"],
        addresses=("http://a", "http://b"),
        phase="Ready",
        reason="Serving",
        message="3 of 3",
        ready_since=now,
        replicas=3,
        logs=False,
        sample_percent=25,
    )
    assert route.is_ready


def test_a_resource_without_a_status_gives_a_route_that_is_not_ready(making: Any) -> None:
    route = route_of(making.resource("m", model={"uri": "file:/m.onnx", "version": "5"}), [])
    assert (route.version, route.signature, route.ready_since) == ("5", None, None)
    assert not route.is_ready


def test_the_model_that_answers_counts_and_not_the_one_that_is_asked_for(making: Any) -> None:
    """While an endpoint moves to a new version, the one before answers."""
    asked = making.resource("m", model={"uri": "models:/m/2"})
    before = making.observation(making.resource("m", model={"uri": "models:/m/1"}))
    assert route_of(asked.model_copy(update={"status": before.status}), ["http://a"]).version == "1"
