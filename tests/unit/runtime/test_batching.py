import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support import models

from moorage_api.errors import ModelFailed, Overloaded
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Array, Tensor
from moorage_runtime import batching
from moorage_runtime.batching import Batcher
from moorage_runtime.predictor import Predictor
from moorage_runtime.session import OnnxPredictor, Options

TIMEOUT_S = 20


class Recording:
    """A model that gives `y` = f(`x`), row by row, and remembers its runs."""

    def __init__(
        self, function: Callable[[Array], Array], shape: tuple[int, ...] = (-1, 2)
    ) -> None:
        self.signature = Signature(
            (TensorSpec("x", "FP32", shape),),
            (TensorSpec("y", "FP32", (-1, 2)), TensorSpec("z", "FP32", (-1, 2))),
        )
        self.function = function
        self.runs: list[list[float]] = []
        self.threads: list[str] = []

    def run(self, arrays: Mapping[str, Array], outputs: Sequence[str] | None) -> list[Tensor]:
        self.threads.append(threading.current_thread().name)
        self.runs.append(arrays["x"].reshape(-1, arrays["x"].shape[-1])[:, 0].tolist())
        y = self.function(arrays["x"])
        return [Tensor(name, "FP32", y) for name in outputs or ["y", "z"]]


def double(x: Array) -> Array:
    return x * 2


def refuse_negative(x: Array) -> Array:
    if (x < 0).any():
        raise ModelFailed("negative")
    return x * 2


def rows(*values: float, width: int = 2) -> dict[str, Array]:
    return {"x": np.repeat(np.array(values, "f4")[:, None], width, 1)}


def run(scenario: Any) -> Any:
    async def in_time() -> Any:
        return await asyncio.wait_for(scenario, TIMEOUT_S)

    return asyncio.run(in_time())


def batcher(predictor: Predictor, **options: Any) -> Batcher:
    defaults: dict[str, Any] = {"max_batch_size": 64, "max_delay_s": 0, "shares": True}
    return Batcher(predictor, **defaults | options)


async def answers(*futures: "asyncio.Future[list[Tensor]]") -> list[Any]:
    """Each request's `y`, first column, or its error."""
    return [
        item if isinstance(item, BaseException) else item[0].array[:, 0].tolist()
        for item in await asyncio.gather(*futures, return_exceptions=True)
    ]


SIZES = st.lists(
    st.lists(st.floats(-9, 9, width=16), max_size=4).map(lambda values: rows(*values)),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("expected_s", [0.0, 1.0], ids=["on the loop", "in the thread"])
@pytest.mark.parametrize("shares", [True, False])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(requests=SIZES, limit=st.integers(1, 6), picky=st.booleans())
def test_a_request_gets_what_it_would_get_alone(
    requests: list[dict[str, Array]], limit: int, picky: bool, shares: bool, expected_s: float
) -> None:
    function = refuse_negative if picky else double

    async def scenario() -> None:
        model = Recording(function)
        queue = batcher(model, max_batch_size=limit, shares=shares, expected_s=expected_s)
        futures = [queue.submit(arrays, None, len(arrays["x"])) for arrays in requests]
        found = await asyncio.gather(*futures, return_exceptions=True)
        queue.close()
        for arrays, answer in zip(requests, found, strict=True):
            try:
                expected = function(arrays["x"])
            except ModelFailed:
                assert isinstance(answer, ModelFailed)
                continue
            assert not isinstance(answer, BaseException)
            assert [tensor.name for tensor in answer] == ["y", "z"]
            assert all(np.array_equal(tensor.array, expected) for tensor in answer)
        if not picky:
            assert queue.rows == sum(len(arrays["x"]) for arrays in requests)
            assert queue.runs == len(model.runs)
            largest = max(len(arrays["x"]) for arrays in requests)
            assert all(len(each) <= max(limit, largest) for each in model.runs)
            if not shares:
                assert len(model.runs) == len(requests)

    run(scenario())


def test_requests_ready_in_the_same_turn_share_a_run() -> None:
    async def scenario() -> None:
        model = Recording(double)
        queue = batcher(model)
        futures = [queue.submit(rows(at), None, 1) for at in range(5)]
        assert await answers(*futures) == [[0], [2], [4], [6], [8]]
        assert model.runs == [[0, 1, 2, 3, 4]]
        assert (queue.runs, queue.rows) == (1, 5)

    run(scenario())


def test_a_batch_holds_no_more_rows_than_its_limit_in_order_of_arrival() -> None:
    async def scenario() -> None:
        model = Recording(double)
        queue = batcher(model, max_batch_size=3)
        sizes = ([1, 2], [3, 4], [5], [6, 7, 8, 9], [10])
        futures = [queue.submit(rows(*values), None, len(values)) for values in sizes]
        assert await answers(*futures) == [[value * 2 for value in values] for values in sizes]
        assert model.runs == [[1, 2, 5], [3, 4, 10], [6, 7, 8, 9]]

    run(scenario())


def test_an_error_in_one_request_fails_that_request_alone() -> None:
    async def scenario() -> None:
        model = Recording(refuse_negative)
        queue = batcher(model)
        futures = [queue.submit(rows(at), None, 1) for at in (1, -2, 3)]
        first, second, third = await answers(*futures)
        assert (first, third) == ([2], [6])
        assert isinstance(second, ModelFailed)
        assert model.runs == [[1, -2, 3], [1], [-2], [3]]

    run(scenario())


@pytest.mark.parametrize("expected_s", [0.0, 1.0], ids=["on the loop", "in the thread"])
@pytest.mark.parametrize("count", [1, 3])
def test_an_unexpected_error_is_the_answer_of_everyone_and_the_queue_goes_on(
    count: int, expected_s: float
) -> None:
    async def scenario() -> None:
        broken = True

        def function(x: Array) -> Array:
            if broken:
                raise MemoryError("too large")
            return x

        queue = batcher(Recording(function), expected_s=expected_s)
        futures = [queue.submit(rows(at), None, 1) for at in range(count)]
        assert [type(item) for item in await answers(*futures)] == [MemoryError] * count
        broken = False
        assert await answers(queue.submit(rows(7), None, 1)) == [[7]]
        queue.close()

    run(scenario())


def test_rows_that_cannot_be_put_together_are_answered_with_an_error_and_not_with_silence() -> None:
    async def scenario() -> None:
        queue = batcher(Recording(double))
        # The signature has been checked before; whatever slips through may not hang.
        futures = [queue.submit(rows(1), None, 1), queue.submit(rows(1, width=3), None, 1)]
        assert all(isinstance(item, ValueError) for item in await answers(*futures))

    run(scenario())


def test_outputs_that_are_not_one_a_row_are_computed_alone() -> None:
    async def scenario() -> None:
        model = Recording(lambda x: x[x[:, 0] > 0])
        queue = batcher(model)
        futures = [queue.submit(rows(*values), None, 2) for values in ((1, -1), (2, 3))]
        assert await answers(*futures) == [[1], [2, 3]]

    run(scenario())


def test_requests_of_different_shapes_run_apart_and_do_not_wait_for_each_other() -> None:
    async def scenario() -> None:
        model = Recording(double, (-1, -1))
        queue = batcher(model)
        widths = (2, 3, 2, 3)
        futures = [queue.submit(rows(at, width=width), None, 1) for at, width in enumerate(widths)]
        assert await answers(*futures) == [[0], [2], [4], [6]]
        assert model.runs == [[0, 2], [1, 3]]

    run(scenario())


def test_requests_for_different_outputs_run_apart() -> None:
    async def scenario() -> None:
        model = Recording(double)
        queue = batcher(model)
        first = queue.submit(rows(1), ["z"], 1)
        second = queue.submit(rows(2), None, 1)
        third = queue.submit(rows(3), ["z"], 1)
        assert [tensor.name for tensor in await first] == ["z"]
        assert [tensor.name for tensor in await second] == ["y", "z"]
        assert (await third)[0].array.tolist() == [[6, 6]]
        assert model.runs == [[1, 3], [2]]

    run(scenario())


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_cancelled_request_leaves_the_queue_unrun(shares: bool, count: int) -> None:
    async def scenario() -> None:
        model = Recording(double)
        queue = batcher(model, shares=shares)
        futures = [queue.submit(rows(at), None, 1) for at in range(count)]
        futures[0].cancel()
        last = queue.submit(rows(9), None, 1)
        assert await answers(last) == [[18]]
        assert [value for each in model.runs for value in each] == [*range(1, count), 9]
        assert queue.rows == count

    run(scenario())


def test_nothing_runs_when_everyone_has_gone() -> None:
    async def scenario() -> None:
        model = Recording(double)
        for expected_s in (0.0, 1.0):
            queue = batcher(model, expected_s=expected_s)
            for at in range(3):
                queue.submit(rows(at), None, 1).cancel()
            await asyncio.sleep(0)
            assert model.runs == []
            assert await answers(queue.submit(rows(1), None, 1)) == [[2]]
            model.runs.clear()
            queue.close()

    run(scenario())


def test_a_full_queue_turns_requests_away_and_takes_them_again_later() -> None:
    async def scenario() -> None:
        queue = batcher(Recording(double), max_batch_size=4)
        futures = [queue.submit(rows(1), None, 1) for _ in range(batching.QUEUE_LIMIT)]
        with pytest.raises(Overloaded, match="1024 requests wait for the model already"):
            queue.submit(rows(1), None, 1)
        futures[3].cancel()
        # What was cancelled makes room.
        assert await answers(queue.submit(rows(5), None, 1)) == [[10]]
        assert await answers(*(item for item in futures if not item.cancelled())) == [[2]] * 1023

    run(scenario())


def test_a_request_of_no_rows_shares_a_run_and_gets_no_rows() -> None:
    async def scenario() -> None:
        model = Recording(double)
        queue = batcher(model)
        futures = [queue.submit(rows(*values), None, len(values)) for values in ((1,), (), (2,))]
        assert await answers(*futures) == [[2], [], [4]]
        assert model.runs == [[1, 2]]

    run(scenario())


def test_a_model_that_answers_no_rows_runs_each_request_alone() -> None:
    async def scenario() -> None:
        model = Recording(double)
        queue = batcher(model, shares=False, max_delay_s=10)
        futures = [queue.submit(rows(1, 2), None, None) for _ in range(2)]
        assert await answers(*futures) == [[2, 4], [2, 4]]
        assert model.runs == [[1, 2], [1, 2]]

    run(scenario())


def test_a_delay_waits_until_the_batch_is_full_and_no_longer() -> None:
    async def scenario() -> None:
        model = Recording(double)
        # The delay is far beyond the test's own limit: only a full batch can end it.
        queue = batcher(model, max_batch_size=3, max_delay_s=3600)
        first = queue.submit(rows(1), None, 1)
        for _ in range(5):
            await asyncio.sleep(0)
        assert model.runs == []
        others = [queue.submit(rows(2), None, 1), queue.submit(rows(3), None, 1)]
        assert await answers(first, *others) == [[2], [4], [6]]
        assert model.runs == [[1, 2, 3]]

    run(scenario())


def test_a_delay_ends_though_nobody_else_comes() -> None:
    async def scenario() -> None:
        queue = batcher(Recording(double), max_delay_s=0.001)
        assert await answers(queue.submit(rows(1), None, 1)) == [[2]]

    run(scenario())


def test_a_slow_model_leaves_the_loop_free_and_its_requests_gather_meanwhile() -> None:
    async def scenario() -> None:
        release = threading.Event()
        started = threading.Event()

        def function(x: Array) -> Array:
            started.set()
            assert release.wait(TIMEOUT_S)
            return x * 2

        model = Recording(function)
        queue = batcher(model, expected_s=1.0)
        first = queue.submit(rows(1), None, 1)
        await asyncio.to_thread(started.wait, TIMEOUT_S)
        # The model runs, and this loop still takes requests.
        others = [queue.submit(rows(at), None, 1) for at in (2, 3, 4)]
        others[1].cancel()
        release.set()
        assert await answers(first, others[0], others[2]) == [[2], [4], [8]]
        assert model.runs == [[1], [2, 4]]
        assert all(name.startswith("moorage-model") for name in model.threads)
        queue.close()

    run(scenario())


def test_a_quick_model_runs_on_the_loop_itself() -> None:
    async def scenario() -> None:
        model = Recording(double)
        await batcher(model).submit(rows(1), None, 1)
        assert model.threads == [threading.current_thread().name]

    run(scenario())


def probe_of(tmp_path: Any, raw: bytes) -> tuple[OnnxPredictor, dict[str, Array]]:
    path = tmp_path / "model.onnx"
    path.write_bytes(raw)
    predictor = OnnxPredictor(path, Options(intra_op_threads=1))
    return predictor, predictor.probe


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (models.double(), True),
        (models.identity("BYTES", ["n", 1]), True),
        (models.identity("BF16", ["n", 2]), True),
        (models.identity("BOOL", ["n"]), True),
        (models.affine(np.random.default_rng(0).normal(size=(30, 20))), True),
        (models.classifier(zipmap=True), True),
        (models.lookup(3), True),
        (models.lookup(1), True),
        (models.two_by_two(), True),
        (models.running_sum(), False),
        (models.identity("FP32", [2, 2]), False),
        (models.identity("FP32", []), False),
        (models.product(), False),
        (models.reshape([2, -1]), False),
        (models.reshape([-1, 2, 2], ["n", 2]), False),
    ],
    ids=["double", "text", "bf16", "bool", "affine", "zipmap", "lookup", "narrow lookup", "two",
         "running sum", "fixed", "rank 0", "product", "halves", "pairs of rows"],
)  # fmt: skip
def test_rows_are_shared_only_where_they_do_not_touch(
    tmp_path: Any, raw: bytes, expected: bool
) -> None:
    assert batching.answers_rows(*probe_of(tmp_path, raw)) is expected


def test_a_model_that_refuses_a_single_row_shares_nothing(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    predictor, probe = probe_of(tmp_path, models.reshape([-1, 2, 2], ["n", 2]))
    assert len(probe["x"]) == 2
    assert batching.answers_rows(predictor, probe) is False
    assert [record.message for record in caplog.records] == [
        "the model refuses a single row; requests will not share runs"
    ]


def test_a_model_that_refuses_made_up_rows_shares_nothing(tmp_path: Any) -> None:
    predictor, probe = probe_of(tmp_path, models.double())

    class Refusing:
        signature = predictor.signature

        def run(self, arrays: Mapping[str, Array], outputs: Sequence[str] | None) -> list[Tensor]:
            raise ModelFailed("no")

    assert batching.answers_rows(Refusing(), probe) is False


def test_rows_of_a_real_model_are_the_same_alone_and_together(tmp_path: Any) -> None:
    predictor, _ = probe_of(tmp_path, models.affine(np.random.default_rng(0).normal(size=(8, 3))))
    requests = [np.random.default_rng(at).normal(size=(at % 4, 8)).astype("f4") for at in range(9)]

    async def scenario() -> None:
        queue = batcher(predictor, max_batch_size=5)
        futures = [queue.submit({"x": x}, None, len(x)) for x in requests]
        for x, future in zip(requests, futures, strict=True):
            (y,) = await future
            alone = predictor.run({"x": x}, None)[0].array
            assert np.allclose(y.array, alone, 1e-5, 1e-6)
            assert y.array.shape == (len(x), 3)

    run(scenario())
