import struct

import numpy as np
import onnx
import pytest

from moorage_api.datatypes import BY_ONNX, DATATYPES


def test_the_table_names_every_datatype_of_the_protocol_and_bf16() -> None:
    assert set(DATATYPES) == {
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
        "FP16", "FP32", "FP64", "BYTES", "BF16",
    }  # fmt: skip


@pytest.mark.parametrize("name", DATATYPES)
def test_numpy_onnx_and_struct_agree_on_an_element(name: str) -> None:
    row = DATATYPES[name]
    assert BY_ONNX[row.onnx] is row
    if name == "BF16":
        assert row.onnx == onnx.TensorProto.BFLOAT16
        assert row.numpy == np.dtype(np.uint16)
        assert row.size == 2
        return
    assert onnx.helper.tensor_dtype_to_np_dtype(row.onnx) == row.numpy
    if name != "BYTES":
        assert row.numpy.itemsize == row.size
    if row.pack:
        assert struct.calcsize(f"<{row.pack}") == row.size
        assert np.frombuffer(struct.pack(f"<{row.pack}", 3), row.numpy) == 3


@pytest.mark.parametrize("name", DATATYPES)
def test_a_type_is_at_most_one_of_float_and_integer(name: str) -> None:
    row = DATATYPES[name]
    assert row.is_float == ("FP" in name or name == "BF16")
    assert row.is_integer == ("INT" in name)
