"""Plain JSON values to tensors and back, as a person writes them.

`POST /predict/…` takes `{"input": …}` and KServe V1 takes `{"instances": […]}` without datatypes or
shapes; the model's signature supplies them. What is accepted, for a model that answers rows:

==========================================  ======================================================
value                                       reading
==========================================  ======================================================
`2.5`                                       one row, where a row is a single element
`[1, 2, 3]`                                 one row of a 1-D row shape; rows of single elements
`[[1, 2], [3, 4]]`                          rows (one nesting more than a row has)
`{"a": 1, "b": "x"}`                        one row, by input name
`{"a": [1, 2], "b": ["x", "y"]}`            rows, by input name
`[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]`  rows, as objects
`[1, "x"]`, `[[1, "x"], [2, "y"]]`          one row or rows of a model with several single-element
                                            inputs, in the order of its signature
==========================================  ======================================================

One row in gives one prediction out, a list of rows gives a list. A model that does not answer rows
takes and gives whole tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorage_api import tensors as codec
from moorage_api.datatypes import DATATYPES
from moorage_api.errors import InvalidBody, InvalidTensor
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor


@dataclass(slots=True)
class Parsed:
    """Tensors made of a plain value.

    Parameters
    ----------
    tensors
        One for each input that the value named.
    many
        True for a list of rows, False for a single row, None for whole tensors.
    """

    tensors: list[Tensor]
    many: bool | None

    @property
    def rows(self) -> int | None:
        """How many rows were given; None for whole tensors."""
        return None if self.many is None or not self.tensors else len(self.tensors[0].array)


def parse(value: Any, signature: Signature, *, literals: bool = True) -> Parsed:
    """Read a plain JSON value as the inputs of a model.

    Parameters
    ----------
    value
        As the table above says.
    signature
        Of the model; its datatypes and shapes are given to the values.
    literals
        See `tensors.from_json`.

    Raises
    ------
    InvalidTensor
        When the value cannot be read as the model's inputs. Missing inputs are left for
        `Signature.check` to find.
    """
    inputs = signature.inputs
    if type(value) is dict:
        return _by_name(value, signature, literals)
    if type(value) is list and value and type(value[0]) is dict:
        return _from_objects(value, signature, literals)
    if len(inputs) == 1:
        tensor, many = _tensor(inputs[0], value, signature.is_batched, literals)
        return Parsed([tensor], many)
    if signature.is_batched and all(is_single(spec) for spec in inputs):
        return _from_positions(value, signature, literals)
    if not inputs:
        raise InvalidBody(f"the model has no inputs: expected {{}}, got {_glimpse(value)}")
    names = ", ".join(repr(spec.name) for spec in inputs)
    raise InvalidTensor(inputs[0].name, f"an object with the inputs {names}", _glimpse(value))


def render(tensors: Sequence[Tensor], signature: Signature, given: Parsed) -> Any:
    """Turn outputs into a plain value that mirrors how the input was given.

    Parameters
    ----------
    tensors
        The outputs of the model.
    signature
        Of the model.
    given
        What `parse` made of the input.

    Returns
    -------
    value
        For `orjson.dumps` with `OPT_SERIALIZE_NUMPY`. One output gives its value, several give an
        object by output name; an output with class labels gives an object of scores by class; a
        row of a single element gives a scalar. Outputs that do not have one row for each row given
        (a detector's boxes, say) are given whole.
    """
    specs = {spec.name: spec for spec in signature.outputs}
    many, count = given.many, given.rows
    if many is None or any(t.array.ndim == 0 or len(t.array) != count for t in tensors):
        values = {t.name: codec.to_json(t.datatype, t.array) for t in tensors}
        return next(iter(values.values())) if len(values) == 1 else values
    columns = {tensor.name: _rows(tensor, specs.get(tensor.name)) for tensor in tensors}
    if len(columns) == 1:
        rows = next(iter(columns.values()))
        return rows if many else rows[0]
    names = list(columns)
    objects = [
        dict(zip(names, cells, strict=True)) for cells in zip(*columns.values(), strict=True)
    ]
    return objects if many else objects[0]


def is_single(spec: TensorSpec) -> bool:
    """Say whether one row of this tensor is a single element."""
    return all(size == 1 for size in spec.row_shape)


def _tensor(
    spec: TensorSpec, value: Any, batched: bool, literals: bool
) -> tuple[Tensor, bool | None]:
    """Read the value of one input, a row or rows by how deep it is nested."""
    datatype = DATATYPES[spec.datatype]
    shape = codec.shape_of(value)
    rank = len(spec.shape)
    many: bool | None
    if not batched:
        if len(shape) != rank:
            raise InvalidTensor(spec.name, str(spec), _glimpse(value))
        many = None
    elif is_single(spec):
        if not shape:
            value, shape, many = [value], (1, *spec.row_shape), False
        elif len(shape) == 1:
            shape, many = (shape[0], *spec.row_shape), True
        elif len(shape) == rank:
            many = True
        else:
            raise InvalidTensor(spec.name, f"{_one(spec)}, or a list of them", _glimpse(value))
    elif len(shape) == rank - 1:
        value, shape, many = [value], (1, *shape), False
    elif len(shape) == rank:
        many = True
    else:
        raise InvalidTensor(spec.name, f"{_one(spec)}, or a list of them", _glimpse(value))
    array = codec.from_json(spec.name, datatype, shape, value, literals=literals)
    return Tensor(spec.name, spec.datatype, array), many


def _by_name(value: dict[str, Any], signature: Signature, literals: bool) -> Parsed:
    specs = {spec.name: spec for spec in signature.inputs}
    tensors: list[Tensor] = []
    first: tuple[str, bool | None] | None = None
    for name, item in value.items():
        spec = specs.get(name)
        if spec is None:
            raise InvalidTensor(name, f"one of the inputs {sorted(specs)}", "an unknown name")
        tensor, many = _tensor(spec, item, signature.is_batched, literals)
        if first is None:
            first = (name, many)
        elif first[1] != many:
            one, rows = (first[0], name) if many else (name, first[0])
            raise InvalidTensor(
                one, f"rows, as input {rows!r} has", "one row; give all one row or all rows"
            )
        tensors.append(tensor)
    many = first[1] if first else (False if signature.is_batched else None)
    return Parsed(tensors, many)


def _from_objects(value: list[Any], signature: Signature, literals: bool) -> Parsed:
    """Read a list of objects, each one row by input name."""
    if not signature.is_batched:
        raise InvalidTensor(
            signature.inputs[0].name, "whole tensors (this model does not answer rows)", "objects"
        )
    names = [spec.name for spec in signature.inputs]
    for index, row in enumerate(value):
        if type(row) is not dict or row.keys() != value[0].keys():
            raise InvalidTensor(
                names[0], f"objects with the keys {sorted(value[0])}", f"another in row {index}"
            )
    columns = {name: [row[name] for row in value] for name in value[0]}
    specs = {spec.name: spec for spec in signature.inputs}
    tensors: list[Tensor] = []
    for name, column in columns.items():
        spec = specs.get(name)
        if spec is None:
            raise InvalidTensor(name, f"one of the inputs {sorted(specs)}", "an unknown name")
        shape = codec.shape_of(column)
        if is_single(spec) and len(shape) == 1:
            shape = (len(column), *spec.row_shape)
        elif len(shape) != len(spec.shape):
            raise InvalidTensor(name, f"{_one(spec)} in each row", _glimpse(column[0]))
        array = codec.from_json(name, DATATYPES[spec.datatype], shape, column, literals=literals)
        tensors.append(Tensor(name, spec.datatype, array))
    return Parsed(tensors, True)


def _from_positions(value: Any, signature: Signature, literals: bool) -> Parsed:
    """Read rows of a model with several single-element inputs, one column an input."""
    inputs = signature.inputs
    names = ", ".join(repr(spec.name) for spec in inputs)
    expected = f"rows of {len(inputs)} values for {names}, or an object with them"
    if type(value) is not list:
        raise InvalidTensor(inputs[0].name, expected, _glimpse(value))
    many = bool(value) and type(value[0]) is list
    rows = value if many else [value]
    for row in rows:
        if type(row) is not list or len(row) != len(inputs):
            raise InvalidTensor(inputs[0].name, expected, _glimpse(row))
    tensors: list[Tensor] = []
    for spec, column in zip(inputs, zip(*rows, strict=True), strict=True):
        shape = (len(rows), *spec.row_shape)
        array = codec.from_json(
            spec.name, DATATYPES[spec.datatype], shape, list(column), literals=literals
        )
        tensors.append(Tensor(spec.name, spec.datatype, array))
    return Parsed(tensors, many)


def _rows(tensor: Tensor, spec: TensorSpec | None) -> Any:
    """Return a sequence with one plain value a row."""
    array = tensor.array
    if spec is not None and spec.classes:
        scores: Mapping[str, Any]
        rows = []
        for row in array:
            scores = dict(zip(spec.classes, row, strict=True))
            rows.append(scores)
        return rows
    # A file may declare less than its graph gives, so the array has the last word.
    if spec is not None and is_single(spec) and array.size == array.shape[0]:
        array = array.reshape(array.shape[0])
    return codec.to_json(tensor.datatype, array)


def _one(spec: TensorSpec) -> str:
    if is_single(spec):
        return f"one {spec.datatype} value"
    sizes = " x ".join("any" if size == -1 else str(size) for size in spec.row_shape)
    return f"a row of {sizes} {spec.datatype} values"


def _glimpse(value: Any) -> str:
    shape = codec.shape_of(value)
    if shape:
        return f"lists nested as {list(shape)}"
    return (
        f"an object with the keys {sorted(value)[:20]}"
        if isinstance(value, dict)
        else codec.kind_of(value)
    )
