"""How much memory a record is taken to hold."""

from typing import Any

import pytest

from moorage_gateway.prediction_log import ModelIdentity, Record


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        pytest.param([], 1024, id="nothing but itself"),
        pytest.param([("FP32", [[1, 2]])], 1024 + 8, id="numbers"),
        pytest.param([("FP32", [[1, 2]]), ("INT64", [1])], 1024 + 16, id="several tensors"),
        pytest.param(
            [("BYTES", ["a", "bcd"])], 1024 + 2 * 72 + 4, id="texts count beyond their pointers"
        ),
    ],
)
def test_a_records_size_grows_with_its_tensors(
    signatures: Any, tensor: Any, parts: Any, size: int
) -> None:
    identity = ModelIdentity("n", "d", "stable", "m", "1", "", signatures["row"])
    tensors = [tensor("t", datatype, values) for datatype, values in parts]
    assert Record(bytes(16), identity, "v2", 200, tensors).nbytes == size
    assert Record(bytes(16), identity, "v2", 200, (), tensors).nbytes == size
