"""The plan for one machine: tables for single decisions, a simulated machine for the laws."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase as Stage
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moorage_api import folder, v1alpha1
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.reasons import Condition, Phase, Reason
from moorage_api.v1alpha1 import ConditionStatus, ModelDeployment, ModelStatus
from moorage_operator.core import local, runtime_flags
from moorage_operator.core.local import BACKOFF, RETIRE_AFTER, SETTLED_AFTER, Plan, Process

Make = Callable[..., ModelDeployment]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
GATEWAY = "http://127.0.0.1:8080"


def plan(
    asked: Sequence[ModelDeployment],
    seen: Sequence[Process] = (),
    before: Mapping[Qualified, Observed] | None = None,
    now: datetime = NOW,
) -> Plan:
    return local.plan(asked, seen, before or {}, now, gateway_url=GATEWAY)


def process(resource: ModelDeployment, number: int = 0, **facts: Any) -> Process:
    """Make a process of the resource that was started a minute ago and serves."""
    bare: dict[str, Any] = {
        "id": number,
        "key": resource.key,
        "flags": tuple(runtime_flags.build(resource)),
        "replica": 0,
        "state": "ready",
        "started_at": NOW - timedelta(minutes=1),
        "address": f"http://127.0.0.1:{9000 + number}",
    }
    if facts.get("state", "ready") == "ready":
        bare["ready_at"] = NOW - timedelta(seconds=50)
        bare["model"] = ModelStatus(version=resource.model_version, sha256="0" * 64)
    return Process(**bare | facts)


def ended(resource: ModelDeployment, number: int = 0, **facts: Any) -> Process:
    """Make a process of the resource that has just ended without having served."""
    bare = {"ended_at": NOW, "exit_status": 1, "last_words": "oh"}
    return process(resource, number, state="ended", **bare | facts)


def ready(decided: Plan, resource: ModelDeployment) -> ConditionStatus:
    condition = decided.observed[resource.key].status.condition(Condition.READY)
    assert condition is not None
    return condition


def acts(decided: Plan) -> tuple[object, ...]:
    return decided.start, decided.retire, decided.stop, decided.forget


class TestStarting:
    """Which processes are started."""

    def test_a_new_resource_gets_a_process_for_each_replica(self, make: Make) -> None:
        iris = make(replicas=3)
        decided = plan([iris])
        assert [start.replica for start in decided.start] == [0, 1, 2]
        assert {start.flags for start in decided.start} == {tuple(runtime_flags.build(iris))}
        assert {start.failures for start in decided.start} == {0}
        assert ready(decided, iris).reason == Reason.LOADING
        assert decided.observed[iris.key].status.phase == Phase.PENDING

    def test_a_process_that_starts_is_not_started_again(self, make: Make) -> None:
        iris = make()
        assert acts(plan([iris], [process(iris, state="starting")])) == ((), (), (), ())

    @pytest.mark.parametrize("spec", [{"stopped": True}, {"replicas": 0}], ids=["stopped", "zero"])
    def test_nothing_runs_for_a_resource_that_asks_for_nothing(
        self, make: Make, spec: dict[str, Any]
    ) -> None:
        decided = plan([make(**spec)])
        assert acts(decided) == ((), (), (), ())
        assert decided.observed[make().key].status.phase == Phase.STOPPED

    def test_scaling_up_adds_and_leaves_the_others_alone(self, make: Make) -> None:
        iris = make(replicas=3)
        decided = plan([iris], [process(iris, 1), process(iris, 2, replica=1)])
        assert [start.replica for start in decided.start] == [2]
        assert not decided.retire
        assert ready(decided, iris).reason == Reason.PARTLY_READY
        assert decided.observed[iris.key].status.phase == Phase.DEGRADED

    def test_scaling_down_retires_the_highest_replicas(self, make: Make) -> None:
        iris = make(replicas=1)
        decided = plan([iris], [process(iris, n, replica=n) for n in range(3)])
        assert decided.retire == (1, 2)
        assert decided.observed[iris.key].addresses == ("http://127.0.0.1:9000",)
        assert ready(decided, iris).reason == Reason.SERVING

    def test_scaling_down_keeps_the_one_that_serves_until_another_does(self, make: Make) -> None:
        iris = make(replicas=1)
        decided = plan([iris], [ended(iris, 1, failures=9), process(iris, 2, replica=1)])
        assert decided.retire == ()
        assert decided.observed[iris.key].addresses == ("http://127.0.0.1:9002",)
        assert plan([iris], [process(iris, 3), process(iris, 2, replica=1)]).retire == (2,)

    def test_a_retired_process_does_not_count_when_its_replica_is_wanted_again(
        self, make: Make
    ) -> None:
        iris = make()
        decided = plan([iris], [process(iris, 4, retired_at=NOW)])
        assert [start.replica for start in decided.start] == [0]
        assert decided.observed[iris.key].addresses == ()


class TestEnding:
    """Which processes are ended, and when."""

    def test_a_removed_resource_retires_its_processes(self, make: Make) -> None:
        iris = make(replicas=2)
        decided = plan([], [process(iris, 1), process(iris, 2, replica=1, state="starting")])
        assert decided.retire == (1, 2)
        assert not decided.stop
        assert decided.observed == {}
        assert decided.wake_at == NOW + RETIRE_AFTER

    def test_stopping_retires_and_says_so(self, make: Make) -> None:
        iris = make(stopped=True)
        decided = plan([iris], [process(iris, 1)])
        assert decided.retire == (1,)
        assert decided.observed[iris.key].addresses == ()
        stopped = decided.observed[iris.key].status.condition(Condition.STOPPED)
        assert stopped is not None
        assert (stopped.status, stopped.reason) == ("True", Reason.STOPPED)
        assert (ready(decided, iris).status, ready(decided, iris).reason) == ("False", "Stopped")

    def test_a_retired_process_is_stopped_when_its_requests_have_had_their_time(
        self, make: Make
    ) -> None:
        iris = make()
        retired = process(iris, 1, retired_at=NOW)
        soon = plan([], [retired], now=NOW + RETIRE_AFTER - timedelta(milliseconds=1))
        assert (soon.retire, soon.stop) == ((), ())
        assert soon.wake_at == NOW + RETIRE_AFTER
        assert plan([], [retired], now=NOW + RETIRE_AFTER).stop == (1,)

    def test_an_ended_process_of_a_removed_resource_is_forgotten(self, make: Make) -> None:
        decided = plan([], [ended(make(), 1), ended(make(), 2, retired_at=NOW)])
        assert decided.forget == (1, 2)
        assert not decided.stop

    def test_a_process_of_an_overtaken_generation_that_ended_is_forgotten(self, make: Make) -> None:
        decided = plan([make(version="2")], [ended(make(version="1"), 1)])
        assert decided.forget == (1,)


class TestRestarting:
    """A process that ended is started again, ever later, but not for ever later."""

    @pytest.mark.parametrize(
        ("failures", "wait_s"),
        [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (7, 60), (10_000, 60)],
    )
    def test_the_wait_doubles_up_to_a_minute(
        self, make: Make, failures: int, wait_s: float
    ) -> None:
        iris = make()
        due = NOW + timedelta(seconds=wait_s)
        seen = [ended(iris, 1, failures=failures)]
        waiting = plan([iris], seen, now=due - timedelta(milliseconds=1))
        assert (waiting.start, waiting.forget, waiting.wake_at) == ((), (), due)
        (start,) = plan([iris], seen, now=due).start
        assert start.failures == failures + 1

    @pytest.mark.parametrize(
        ("served", "wait"),
        [(SETTLED_AFTER, BACKOFF[0]), (SETTLED_AFTER - SECOND, timedelta(seconds=16))],
        ids=["settled", "not settled"],
    )
    def test_a_process_that_served_for_long_is_started_again_soon(
        self, make: Make, served: timedelta, wait: timedelta
    ) -> None:
        iris = make()
        seen = [ended(iris, 1, ready_at=NOW - served, failures=4)]
        assert plan([iris], seen).wake_at == NOW + wait

    def test_each_replica_waits_for_itself(self, make: Make) -> None:
        iris = make(replicas=2)
        seen = [ended(iris, 1, failures=9), ended(iris, 2, replica=1)]
        decided = plan([iris], seen, now=NOW + SECOND)
        assert [start.replica for start in decided.start] == [1]

    def test_another_generation_does_not_wait_for_the_failures_before_it(self, make: Make) -> None:
        decided = plan([make(version="2")], [ended(make(version="1"), 1, failures=9)])
        assert [start.failures for start in decided.start] == [0]

    def test_why_it_ended_remains_the_news_while_it_is_started_again(self, make: Make) -> None:
        iris = make()
        seen = [
            ended(iris, 1, last_words="BadModel: no graph"),
            process(iris, 2, state="starting", failures=1),
        ]
        decided = plan([iris], seen, now=NOW + SECOND)
        assert decided.forget == ()
        assert ready(decided, iris).reason == Reason.BAD_MODEL

    def test_why_it_ended_is_forgotten_once_another_serves_or_ended_too(self, make: Make) -> None:
        iris = make()
        for later in (process(iris, 2), ended(iris, 2)):
            assert plan([iris], [ended(iris, 1), later]).forget == (1,)


class TestGenerations:
    """A change of the model: the one before serves until the new one does."""

    def test_the_old_one_serves_while_the_new_one_loads(self, make: Make) -> None:
        old, new = make(version="1"), make(version="2")
        decided = plan([new], [process(old, 1), process(new, 2, state="starting", doing="loading")])
        assert acts(decided) == ((), (), (), ())
        seen = decided.observed[new.key]
        assert seen.addresses == ("http://127.0.0.1:9001",)
        assert seen.status.model.version == "1"
        assert seen.status.phase == Phase.DEGRADED
        assert seen.digest == folder.digest(new)
        assert ready(decided, new).status == "False"
        assert ready(decided, new).message == "loading; version 1 still answers"

    def test_the_old_one_goes_when_the_new_one_serves(self, make: Make) -> None:
        old, new = make(version="1"), make(version="2")
        decided = plan([new], [process(old, 1), process(new, 2)])
        assert decided.retire == (1,)
        assert decided.observed[new.key].addresses == ("http://127.0.0.1:9002",)
        assert decided.observed[new.key].status.model.version == "2"

    def test_a_new_one_that_fails_leaves_the_old_one_serving_and_says_so(self, make: Make) -> None:
        old, new = make(version="1"), make(version="2")
        failed = ended(new, 2, exit_status=3, last_words="UnsupportedOpset: opset 99")
        decided = plan([new], [process(old, 1), failed])
        assert decided.retire == ()
        assert decided.observed[new.key].addresses == ("http://127.0.0.1:9001",)
        assert decided.observed[new.key].status.phase == Phase.DEGRADED
        assert ready(decided, new).reason == Reason.UNSUPPORTED_OPSET
        assert "opset 99; export the model for an older opset" in ready(decided, new).message
        assert ready(decided, new).message.endswith("; version 1 still answers")

    def test_one_that_is_overtaken_while_it_loads_is_retired(self, make: Make) -> None:
        first, second, third = (make(version=version) for version in "123")
        decided = plan([third], [process(first, 1), process(second, 2, state="starting")])
        assert decided.retire == (2,)
        assert [start.flags for start in decided.start] == [tuple(runtime_flags.build(third))]

    def test_of_two_old_ones_that_serve_the_newest_is_kept(self, make: Make) -> None:
        first, second, third = (make(version=version) for version in "123")
        decided = plan([third], [process(first, 1), process(second, 2)])
        assert decided.retire == (1,)
        assert decided.observed[third.key].addresses == ("http://127.0.0.1:9002",)

    def test_what_changes_only_the_gateway_starts_nothing(self, make: Make) -> None:
        changed = make(endpoint="flowers", logging={"enabled": False})
        assert acts(plan([changed], [process(make(), 1)])) == ((), (), (), ())


class TestEndpoints:
    """One endpoint, two that want it."""

    def test_the_older_one_has_it_and_the_other_is_told_whose_it_is(self, make: Make) -> None:
        first, second = make("a", endpoint="x"), make("b", endpoint="x")
        decided = plan([first, second])
        assert [start.key for start in decided.start] == [first.key]
        assert ready(decided, second).reason == Reason.ENDPOINT_TAKEN
        assert "belongs to default/a" in ready(decided, second).message
        assert decided.observed[second.key].status.phase == Phase.FAILED

    def test_one_that_loses_it_retires_its_processes(self, make: Make) -> None:
        first, second = make("a", endpoint="x"), make("b", endpoint="x")
        decided = plan([first, second], [process(first, 1), process(second, 2)])
        assert decided.retire == (2,)

    def test_it_is_free_when_its_holder_is_gone(self, make: Make) -> None:
        second = make("b", endpoint="x")
        assert [start.key for start in plan([second]).start] == [second.key]

    def test_another_namespace_has_endpoints_of_its_own(self, make: Make) -> None:
        resources = [make("a", endpoint="x"), make("a", namespace="other", endpoint="x")]
        assert len(plan(resources).start) == 2

    def test_a_name_is_an_endpoint_where_none_is_given(self, make: Make) -> None:
        decided = plan([make("a", endpoint="b"), make("b")])
        assert ready(decided, make("b")).reason == Reason.ENDPOINT_TAKEN


class TestStatus:
    """What is said of a deployment."""

    def test_one_that_serves_says_what_and_where(self, make: Make) -> None:
        iris = make(replicas=2, endpoint="flowers", version="7")
        decided = plan([iris], [process(iris, 1), process(iris, 2, replica=1)])
        status = decided.observed[iris.key].status
        assert (status.phase, status.replicas, status.ready_replicas) == (Phase.READY, 2, 2)
        assert status.url == f"{GATEWAY}/predict/flowers"
        assert status.address.url == "http://127.0.0.1:9001"
        assert status.model.version == "7"
        assert [(item.name, item.version, item.weight) for item in status.variants] == [
            ("stable", "7", 100)
        ]
        assert ready(decided, iris).message == "2 of 2 serve version 7"
        assert decided.wake_at is None

    @pytest.mark.parametrize(
        ("words", "status", "reason", "message"),
        [
            ("DownloadFailed: x: gone", 3, Reason.DOWNLOAD_FAILED, "x: gone; check spec.model.uri"),
            ("ChecksumMismatch: a, b", 3, Reason.CHECKSUM_MISMATCH, "a, b; correct spec.model"),
            ("UnsupportedOpset: 99", 3, Reason.UNSUPPORTED_OPSET, "99; export the model"),
            ("BadModel: no", 3, Reason.BAD_MODEL, "no; check the file with onnx.checker"),
            ("Segfault: core", 1, Reason.CRASH_LOOP, "ended with status 1: Segfault: core"),
            ("Serving: not really", 1, Reason.CRASH_LOOP, "ended with status 1: Serving"),
            ("", -9, Reason.CRASH_LOOP, "the runtime ended with signal 9"),
        ],
        ids=["download", "checksum", "opset", "bad", "other", "not a cause", "killed"],
    )
    def test_the_last_words_of_a_process_are_the_reason(
        self, make: Make, words: str, status: int, reason: Reason, message: str
    ) -> None:
        iris = make()
        seen = [ended(iris, 1, last_words=words, exit_status=status)]
        said = ready(plan([iris], seen), iris)
        assert said.reason == reason
        assert message in said.message

    def test_what_a_process_is_doing_is_told(self, make: Make) -> None:
        iris = make()
        decided = plan([iris], [process(iris, 1, state="starting", doing="downloading")])
        assert ready(decided, iris).message == "downloading"

    def test_the_model_that_last_served_is_remembered_while_none_does(self, make: Make) -> None:
        iris = make()
        before = plan([iris], [process(iris, 1)]).observed
        decided = plan([iris], [ended(iris, 1)], before)
        assert decided.observed[iris.key].status.model == before[iris.key].status.model

    def test_a_condition_keeps_its_time_until_its_status_changes(self, make: Make) -> None:
        iris = make(replicas=2)
        half = plan([iris], [process(iris, 1)])
        both = [process(iris, 1), process(iris, 2, replica=1)]
        whole = plan([iris], both, half.observed, NOW + SECOND)
        assert ready(whole, iris).reason != ready(half, iris).reason
        assert ready(whole, iris).last_transition_time == NOW
        none = plan([iris], [ended(iris, 1)], whole.observed, NOW + 2 * SECOND)
        assert ready(none, iris).last_transition_time == NOW + 2 * SECOND

    def test_a_condition_that_is_written_anew_starts_its_time_anew(self, make: Make) -> None:
        assert ready(plan([make()]), make()).last_transition_time == NOW


#: What somebody may change of a resource, leaving the rest as it is.
CHANGES: list[dict[str, Any]] = [
    {"replicas": 0},
    {"replicas": 1},
    {"replicas": 2},
    {"stopped": True},
    {"stopped": False},
    {"model": {"version": "1"}},
    {"model": {"version": "2"}},
    {"model": {"version": "3"}},
    {"model": {"version": "bad"}},
]


class Machine(RuleBasedStateMachine):
    """One machine on which anything may happen at any time, and a supervisor that follows plans.

    Models of version "bad" never come up. A process that is stopped ends later, by an event. The
    supervisor looks after an event, or only after some more (`looks`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.asked: list[ModelDeployment] = []
        self.processes: dict[int, Process] = {}
        self.stopping: set[int] = set()
        self.before: Mapping[Qualified, Observed] = {}
        self.wake_at: datetime | None = None
        self.next_id = 0
        self.has_looked = True

    # What happens.

    @rule(
        name=st.sampled_from("ab"),
        version=st.sampled_from(["1", "2", "bad"]),
        replicas=st.integers(0, 3),
        endpoint=st.sampled_from(["x", None]),
        looks=st.booleans(),
    )
    def somebody_asks(
        self, name: str, version: str, replicas: int, endpoint: str | None, looks: bool
    ) -> None:
        spec = {"model": {"uri": "file:/m.onnx", "version": version}, "replicas": replicas}
        resource = v1alpha1.load(
            {
                "apiVersion": "moorage.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": {"name": name},
                "spec": {**spec, "endpoint": endpoint},
            }
        )
        keys = [known.key for known in self.asked]
        if resource.key in keys:
            self.asked[keys.index(resource.key)] = resource
        else:
            self.asked.append(resource)
        self.look(looks)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), change=st.sampled_from(CHANGES), looks=st.booleans())
    def somebody_edits(self, data: st.DataObject, change: dict[str, Any], looks: bool) -> None:
        at = data.draw(st.integers(0, len(self.asked) - 1))
        document = v1alpha1.dump(self.asked[at])
        model = {**document["spec"]["model"], **change.get("model", {})}
        document["spec"] = {**document["spec"], **change, "model": model}
        self.asked[at] = v1alpha1.load(document)
        self.look(looks)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), looks=st.booleans())
    def somebody_removes(self, data: st.DataObject, looks: bool) -> None:
        self.asked.remove(data.draw(st.sampled_from(self.asked)))
        self.look(looks)

    @precondition(lambda self: self.of_state("starting"))
    @rule(data=st.data(), looks=st.booleans())
    def a_process_becomes_ready_or_fails(self, data: st.DataObject, looks: bool) -> None:
        self.come_up(data.draw(st.sampled_from(self.of_state("starting"))))
        self.look(looks)

    @precondition(lambda self: self.of_state("starting", "ready"))
    @rule(data=st.data(), looks=st.booleans())
    def a_process_dies(self, data: st.DataObject, looks: bool) -> None:
        self.end(data.draw(st.sampled_from(self.of_state("starting", "ready"))), -9)
        self.look(looks)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.look(True)

    @rule()
    def the_world_calms_down(self) -> None:
        """Nothing goes wrong any more: what can be served is served soon, whatever was before."""
        for _ in range(15):
            for number in self.of_state("starting"):
                self.come_up(number)
            for number in list(self.stopping):
                self.end(number, 0)
            self.now = max(self.now, self.wake_at or self.now)
            self.look(True)
        for resource in self.asked:
            status = self.before[resource.key].status
            condition = status.condition(Condition.READY)
            assert condition is not None
            if self.is_served(resource) and resource.model_version != "bad":
                assert condition.reason == Reason.SERVING
                assert status.ready_replicas == resource.spec.replicas
                assert status.model.version == resource.model_version
                assert len(self.alive(resource.key)) == resource.spec.replicas
            elif self.is_served(resource):
                assert condition.reason == Reason.BAD_MODEL
            else:
                assert not self.alive(resource.key)
        wanted = {resource.key for resource in self.asked}
        assert {process.key for process in self.processes.values()} <= wanted

    def teardown(self) -> None:
        self.the_world_calms_down()

    # What always holds.

    @precondition(lambda self: self.has_looked)
    @invariant()
    def the_plan_of_what_it_made_is_to_do_nothing(self) -> None:
        again = self.decide()
        assert acts(replace(again, stop=())) == ((), (), (), ())
        assert set(again.stop) <= self.stopping
        assert again.observed == self.before

    @precondition(lambda self: self.has_looked)
    @invariant()
    def never_more_processes_than_asked_and_one_generation_before(self) -> None:
        for resource in self.asked:
            flags = tuple(runtime_flags.build(resource))
            routed = [p for p in self.alive(resource.key) if not p.retired_at]
            replicas = resource.spec.replicas if self.is_served(resource) else 0
            current = [p for p in routed if p.flags == flags and p.replica < replicas]
            previous = [p for p in routed if p not in current]
            assert len({p.replica for p in current}) == len(current)
            assert len({p.flags for p in previous}) <= 1
            assert len({p.replica for p in previous}) == len(previous)
            if not self.is_served(resource) or any(p.state == "ready" for p in current):
                assert not previous

    @precondition(lambda self: self.has_looked)
    @invariant()
    def what_is_missing_has_a_time_at_which_it_is_started(self) -> None:
        for resource in filter(self.is_served, self.asked):
            flags = tuple(runtime_flags.build(resource))
            there = {
                p.replica for p in self.alive(resource.key) if p.flags == flags and not p.retired_at
            }
            if len(there) < resource.spec.replicas:
                assert self.wake_at is not None
                assert self.now < self.wake_at <= self.now + BACKOFF[1]

    @precondition(lambda self: self.has_looked)
    @invariant()
    def requests_go_to_ready_processes_and_only_to_them(self) -> None:
        for resource in self.asked:
            addresses = self.before[resource.key].addresses
            fit = {
                p.address
                for p in self.alive(resource.key)
                if p.state == "ready" and not p.retired_at
            }
            assert set(addresses) == fit
            assert len(addresses) == len(fit)

    @precondition(lambda self: self.has_looked)
    @invariant()
    def whoever_was_ready_is_told_so_in_a_phase(self) -> None:
        for resource in self.asked:
            status = self.before[resource.key].status
            condition = status.condition(Condition.READY)
            assert condition is not None
            assert (status.phase == Phase.READY) == (condition.reason == Reason.SERVING)
            assert (condition.status == "True") == (status.ready_replicas > 0)

    @precondition(lambda self: self.has_looked)
    @invariant()
    def the_memory_of_ended_processes_is_bounded(self) -> None:
        for resource in self.asked:
            gone = [p for p in self.processes.values() if p.key == resource.key]
            gone = [p for p in gone if p.state == "ended"]
            assert len(gone) <= resource.spec.replicas

    # The shell around the plan.

    def look(self, looks: bool) -> None:
        """Do what a supervisor does, if it looks, until there is nothing to do."""
        self.has_looked = looks
        if not looks:
            return
        served = {
            resource.key
            for resource in filter(self.is_served, self.asked)
            if any(p.state == "ready" and not p.retired_at for p in self.alive(resource.key))
        }
        for _ in range(3):
            decided = self.decide()
            self.before = decided.observed
            for number in decided.retire:
                assert self.processes[number].state != "ended"
                self.processes[number] = replace(self.processes[number], retired_at=self.now)
            for number in decided.stop:
                retired_at = self.processes[number].retired_at
                assert retired_at is not None
                assert retired_at + RETIRE_AFTER <= self.now
                self.stopping.add(number)
            for number in decided.forget:
                assert self.processes.pop(number).state == "ended"
            for start in decided.start:
                self.processes[self.next_id] = Process(
                    self.next_id,
                    start.key,
                    start.flags,
                    start.replica,
                    "starting",
                    self.now,
                    failures=start.failures,
                )
                self.next_id += 1
            self.wake_at = decided.wake_at
            if acts(replace(decided, stop=())) == ((), (), (), ()):
                break
        for resource in self.asked:
            # To follow a plan never takes the last process that answers away.
            if resource.key in served:
                assert self.before[resource.key].addresses

    def decide(self) -> Plan:
        return plan(self.asked, list(self.processes.values()), self.before, self.now)

    def come_up(self, number: int) -> None:
        process = self.processes[number]
        version = process.flags[process.flags.index("--version") + 1]
        if version == "bad":
            self.end(number, 3)
            return
        self.processes[number] = replace(
            process,
            state="ready",
            ready_at=self.now,
            address=f"http://127.0.0.1:{9000 + number}",
            model=ModelStatus(version=version),
        )

    def end(self, number: int, status: int) -> None:
        self.stopping.discard(number)
        self.processes[number] = replace(
            self.processes[number],
            state="ended",
            ended_at=self.now,
            exit_status=status,
            last_words="BadModel: never" if status == 3 else "",
        )

    def of_state(self, *states: str) -> list[int]:
        return [p.id for p in self.processes.values() if p.state in states]

    def alive(self, key: Qualified) -> list[Process]:
        return [p for p in self.processes.values() if p.key == key and p.state != "ended"]

    def is_served(self, resource: ModelDeployment) -> bool:
        """Whether processes of the resource should run: asked of the older claims alone."""
        claims = [known for known in self.asked if known.endpoint == resource.endpoint]
        asks = resource.spec.replicas > 0 and not resource.spec.stopped
        return asks and claims[0].key == resource.key


TestMachine = Machine.TestCase
# Not shrunk: that takes minutes, and forty steps can be read.
TestMachine.settings = settings(
    max_examples=25, stateful_step_count=40, report_multiple_bugs=False, phases=[Stage.generate]
)
