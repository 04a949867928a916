"""What should run on one machine without a cluster, and what to say of each deployment.

`plan` is to `moorage up` what the operator's plan is to a cluster. It looks at everything and
decides anew each time; a process that dies, a file that changes and a timer all lead to the same
call.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from moorage_api import folder
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.reasons import MODEL_REJECTED, Condition, Phase, Reason
from moorage_api.v1alpha1 import (
    Address,
    ConditionStatus,
    ModelDeployment,
    ModelDeploymentStatus,
    ModelStatus,
    VariantStatus,
)
from moorage_operator.core import runtime_flags
from moorage_operator.core.desired.manifest import STABLE

#: A process that is no longer routed to runs on this long, for requests that were on their way.
RETIRE_AFTER: Final = timedelta(seconds=1)
#: First and longest wait before a process that ended is started again; it doubles each time.
BACKOFF: Final = (timedelta(seconds=1), timedelta(seconds=60))
#: A process that served this long had no trouble starting: the wait begins anew.
SETTLED_AFTER: Final = timedelta(seconds=60)

#: What a person can do about it.
_WAY_OUT: Final = {
    Reason.DOWNLOAD_FAILED: "check spec.model.uri, and that it can be reached from here",
    Reason.CHECKSUM_MISMATCH: "correct spec.model.sha256, or put the right file there",
    Reason.UNSUPPORTED_OPSET: "export the model for an older opset, or install a newer onnxruntime",
    Reason.BAD_MODEL: "check the file with onnx.checker, or export it again",
}


@dataclass(frozen=True, slots=True)
class Process:
    """One runtime process, alive or ended.

    Parameters
    ----------
    id
        Unique among all.
    key
        Of the deployment that it is for.
    flags
        It was started with; another list is another generation.
    replica
        Its number, from 0.
    state
        "starting" until a probe has been answered.
    started_at, ready_at, ended_at, retired_at
        When it was started, ready, found to have ended, and no longer routed to.
    address
        Base URL, once it is known.
    model
        What it serves, once it is ready.
    doing
        What it says it is waiting for, while it starts.
    exit_status, last_words
        How it ended: its status, negative for a signal, and its last line of standard error.
    failures
        How many before it, in its place and with its flags, ended in trouble.
    """

    id: int
    key: Qualified
    flags: tuple[str, ...]
    replica: int
    state: Literal["starting", "ready", "ended"]
    started_at: datetime
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    retired_at: datetime | None = None
    address: str = ""
    model: ModelStatus = field(default_factory=ModelStatus)
    doing: str = ""
    exit_status: int = 0
    last_words: str = ""
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """A process to be started."""

    key: Qualified
    flags: tuple[str, ...]
    replica: int
    failures: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    Parameters
    ----------
    start
        Processes to start.
    retire
        Processes that are no longer routed to once `observed` is written; they go on for a while.
    stop
        Processes to end.
    forget
        Ended processes that tell nothing any more.
    observed
        What to say of each deployment.
    wake_at
        When to look again even if nothing happens; None for no such time.
    """

    start: tuple[Start, ...]
    retire: tuple[int, ...]
    stop: tuple[int, ...]
    forget: tuple[int, ...]
    observed: Mapping[Qualified, Observed]
    wake_at: datetime | None


def plan(
    asked: Sequence[ModelDeployment],
    seen: Sequence[Process],
    before: Mapping[Qualified, Observed],
    now: datetime,
    *,
    gateway_url: str,
) -> Plan:
    """Decide what to do.

    Parameters
    ----------
    asked
        The deployments, oldest first: of two that claim one endpoint the first has it.
    seen
        All processes, ended ones too until they are forgotten.
    before
        What was last said of each deployment.
    now
        Aware, UTC.
    gateway_url
        Base URL of the gateway.
    """
    start: list[Start] = []
    retire: list[int] = []
    forget: list[int] = []
    observed: dict[Qualified, Observed] = {}
    wake: list[datetime] = []
    wanted = {resource.key for resource in asked}
    holders: dict[tuple[str, str], Qualified] = {}
    for resource in asked:
        holder = holders.setdefault((resource.key.namespace, resource.endpoint), resource.key)
        mine = [process for process in seen if process.key == resource.key]
        part = _Deployment(resource, mine, before.get(resource.key), holder, gateway_url)
        start += part.starts(now, wake)
        retire += part.retires()
        forget += part.forgets()
        observed[resource.key] = part.observed(now)
    for process in seen:
        if process.key not in wanted:
            (forget if process.state == "ended" else retire).append(process.id)
    retire = [process.id for process in seen if process.id in retire and not process.retired_at]
    stop: list[int] = []
    for process in seen:
        if process.retired_at is not None and process.state != "ended":
            due = process.retired_at + RETIRE_AFTER
            if due <= now:
                stop.append(process.id)
            else:
                wake.append(due)
    if retire:
        wake.append(now + RETIRE_AFTER)
    return Plan(
        tuple(start), tuple(retire), tuple(stop), tuple(forget), observed, min(wake, default=None)
    )


@dataclass(frozen=True, slots=True)
class _Deployment:
    """One deployment, its processes, and what was said of it."""

    resource: ModelDeployment
    processes: Sequence[Process]
    before: Observed | None
    holder: Qualified
    gateway_url: str

    @property
    def _flags(self) -> tuple[str, ...]:
        return tuple(runtime_flags.build(self.resource))

    @property
    def _replicas(self) -> int:
        """How many processes should run."""
        off = self.resource.spec.stopped or self.holder != self.resource.key
        return 0 if off else self.resource.spec.replicas

    def _current(self) -> list[Process]:
        """Return the processes of this generation whose replica is wanted."""
        flags, replicas = self._flags, self._replicas
        return [
            process
            for process in self.processes
            if process.flags == flags and process.replica < replicas and not process.retired_at
        ]

    def _ready(self) -> list[Process]:
        return [process for process in self._current() if process.state == "ready"]

    def _previous(self) -> list[Process]:
        """Return the ready processes that are not wanted, while they are still needed."""
        if not self._replicas or self._ready():
            return []
        # Also a replica too many of this generation, while those that are to stay do not serve.
        ready = [
            process
            for process in self.processes
            if process.state == "ready" and not process.retired_at
        ]
        newest = max(ready, key=lambda process: process.id, default=None)
        # Of several generations before, all overtaken while they came up, the newest answers.
        return [process for process in ready if newest and process.flags == newest.flags]

    def starts(self, now: datetime, wake: list[datetime]) -> Iterable[Start]:
        """Yield the processes to start; add to `wake` when another is due."""
        current = self._current()
        for replica in range(self._replicas):
            mine = [process for process in current if process.replica == replica]
            if any(process.state != "ended" for process in mine):
                continue
            last = max(mine, key=lambda process: process.id, default=None)
            failures = 0 if last is None else _failures(last)
            due = now if last is None else _due(last)
            if due <= now:
                yield Start(self.resource.key, self._flags, replica, failures)
            else:
                wake.append(due)

    def retires(self) -> Iterable[int]:
        """Yield the processes that nothing is routed to any more."""
        keep = {process.id for process in (*self._current(), *self._previous())}
        for process in self.processes:
            if process.id not in keep and process.state != "ended":
                yield process.id

    def forgets(self) -> Iterable[int]:
        """Yield the ended processes that neither explain a status nor delay a start."""
        telling: dict[int, Process] = {}
        for process in sorted(self._current(), key=lambda process: process.id):
            # While a process is being started again, the end of the one before remains the news.
            if process.state != "starting":
                telling[process.replica] = process
        for process in self.processes:
            if process.state == "ended" and process not in telling.values():
                yield process.id

    def observed(self, now: datetime) -> Observed:
        """Return what to say of the deployment."""
        resource, ready, previous = self.resource, self._ready(), self._previous()
        serving = ready or previous
        is_ready, reason, message = self._verdict(ready, previous)
        stopped = resource.spec.stopped
        addresses = tuple(process.address for process in serving)
        before = self.before.status if self.before else ModelDeploymentStatus()
        model = serving[0].model if serving else before.model
        status = ModelDeploymentStatus(
            observed_generation=resource.metadata.generation,
            phase=_phase(is_ready, reason, bool(previous)),
            replicas=sum(process.state != "ended" for process in self.processes),
            ready_replicas=len(ready),
            url=f"{self.gateway_url}/predict/{resource.endpoint}",
            address=Address(url=addresses[0] if addresses else ""),
            model=model,
            variants=[
                VariantStatus(
                    name=STABLE,
                    version=model.version or resource.model_version,
                    ready_replicas=len(serving),
                )
            ],
            conditions=[
                _condition(Condition.READY, is_ready, reason, message, before, now),
                _condition(
                    Condition.STOPPED,
                    stopped,
                    Reason.STOPPED if stopped else Reason.RUNNING,
                    "spec.stopped is true" if stopped else "spec.stopped is false",
                    before,
                    now,
                ),
            ],
        )
        return Observed(folder.digest(resource), addresses, status)

    def _verdict(
        self, ready: Sequence[Process], previous: Sequence[Process]
    ) -> tuple[bool, Reason, str]:
        """Judge in order: the first thing that is so is what is said."""
        resource = self.resource
        replicas = resource.spec.replicas
        if resource.spec.stopped:
            return False, Reason.STOPPED, "set spec.stopped to false to serve"
        if self.holder != resource.key:
            return (
                False,
                Reason.ENDPOINT_TAKEN,
                f"endpoint {resource.endpoint!r} belongs to {self.holder}; choose another",
            )
        if not replicas:
            return False, Reason.SCALED_TO_ZERO, "set spec.replicas above 0 to serve"
        version = resource.model_version
        if len(ready) >= replicas:
            return True, Reason.SERVING, f"{len(ready)} of {replicas} serve version {version}"
        if ready:
            return True, Reason.PARTLY_READY, f"{len(ready)} of {replicas} serve version {version}"
        reason, message = self._why_not()
        if previous:
            message += f"; version {previous[0].model.version} still answers"
        return False, reason, message

    def _why_not(self) -> tuple[Reason, str]:
        """Say why no process of this generation is ready."""
        current = self._current()
        ended = [process for process in current if process.state == "ended"]
        # While a process that failed is being started again, its failure remains the news.
        failed = max(ended, key=lambda process: process.id, default=None)
        if failed is not None:
            reason, message = _cause(failed)
            way_out = _WAY_OUT.get(reason)
            return reason, f"{message}; {way_out}" if way_out else message
        doing = next((process.doing for process in current if process.doing), "starting")
        return Reason.LOADING, doing


def _failures(process: Process) -> int:
    """Count the failures up to the end of a process."""
    served = process.ready_at is not None and process.ended_at is not None
    if served and process.ended_at - process.ready_at >= SETTLED_AFTER:  # type: ignore[operator]
        return 1
    return process.failures + 1


def _due(process: Process) -> datetime:
    """Return when a process that ended may be started again."""
    first, longest = BACKOFF
    doublings: int = min(_failures(process) - 1, 10)
    wait: timedelta = min(first * 2**doublings, longest)
    return (process.ended_at or process.started_at) + wait


def _cause(process: Process) -> tuple[Reason, str]:
    """Read the reason in a process's last words, `Reason: message`."""
    word, _, message = process.last_words.partition(": ")
    if word in MODEL_REJECTED:
        return Reason(word), message
    how = (
        f"signal {-process.exit_status}"
        if process.exit_status < 0
        else f"status {process.exit_status}"
    )
    words = f": {process.last_words}" if process.last_words else ""
    return Reason.CRASH_LOOP, f"the runtime ended with {how}{words}"


def _phase(is_ready: bool, reason: Reason, previous: bool) -> Phase:
    if is_ready:
        return Phase.READY if reason == Reason.SERVING else Phase.DEGRADED
    if reason in (Reason.STOPPED, Reason.SCALED_TO_ZERO):
        return Phase.STOPPED
    if previous:
        return Phase.DEGRADED
    return Phase.PENDING if reason == Reason.LOADING else Phase.FAILED


def _condition(
    kind: Condition,
    holds: bool,
    reason: Reason,
    message: str,
    before: ModelDeploymentStatus,
    now: datetime,
) -> ConditionStatus:
    """Return a condition; its time is when its status last changed."""
    word: Literal["True", "False"] = "True" if holds else "False"
    last = before.condition(kind)
    since = last.last_transition_time if last is not None and last.status == word else now
    return ConditionStatus(
        type=kind, status=word, reason=reason, message=message, last_transition_time=since
    )
