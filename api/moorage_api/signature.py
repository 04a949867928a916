"""What a model takes and gives, and whether given tensors fit it.

The gateway checks a request against the signature before the model runs; the runtime checks again,
because it can also be called directly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage_api.datatypes import DATATYPES
from moorage_api.errors import BadModel, InvalidTensor
from moorage_api.tensors import Array, Tensor


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Parameters
    ----------
    name
        As in the model's graph.
    datatype
        V2 name, a key of `DATATYPES`.
    shape
        Sizes, -1 where any size is taken; empty for rank 0.
    classes
        Labels of the last dimension where the graph names them (a ZipMap's keys), as text.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.datatype} {list(self.shape)}"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row: without the first dimension."""
        return self.shape[1:]

    @property
    def is_batched(self) -> bool:
        """Whether the first dimension takes any number of rows."""
        return len(self.shape) > 0 and self.shape[0] == -1

    def to_dict(self) -> dict[str, Any]:
        """Return the V2 metadata form, with `classes` added where there are any."""
        plain = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        return plain | {"classes": list(self.classes)} if self.classes else plain


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of one model, in the order of its graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    _inputs_by_name: Mapping[str, TensorSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_inputs_by_name", {spec.name: spec for spec in self.inputs})

    @property
    def is_batched(self) -> bool:
        """Whether every input and output has a leading dimension of any size.

        Such a model answers rows: n rows in give n rows out.
        """
        return all(spec.is_batched for spec in (*self.inputs, *self.outputs)) and bool(self.inputs)

    def to_dict(self) -> dict[str, Any]:
        """Return `{"inputs": […], "outputs": […]}` in the V2 metadata form."""
        return {
            "inputs": [spec.to_dict() for spec in self.inputs],
            "outputs": [spec.to_dict() for spec in self.outputs],
        }

    def check(self, tensors: Sequence[Tensor]) -> dict[str, Array]:
        """Return the arrays by input name when `tensors` fit this signature.

        Raises
        ------
        InvalidTensor
            For an unknown, repeated or missing input, another datatype, or another shape.
        """
        specs = self._inputs_by_name
        arrays: dict[str, Array] = {}
        for tensor in tensors:
            name = tensor.name
            spec = specs.get(name)
            if spec is None:
                raise InvalidTensor(name, f"one of the inputs {sorted(specs)}", "an unknown name")
            if tensor.datatype != spec.datatype:
                raise InvalidTensor(name, f"datatype {spec.datatype}", f"{tensor.datatype}")
            shape = tensor.array.shape
            wanted = spec.shape
            if shape != wanted and (
                len(shape) != len(wanted)
                or any(want not in (-1, size) for want, size in zip(wanted, shape, strict=True))
            ):
                raise InvalidTensor(name, f"shape {list(wanted)}", f"shape {list(shape)}")
            if name in arrays:
                raise InvalidTensor(name, "each input once", "it twice")
            arrays[name] = tensor.array
        if len(arrays) != len(specs):
            missing = next(spec for spec in self.inputs if spec.name not in arrays)
            raise InvalidTensor(missing.name, str(missing), "no such input in the request")
        return arrays

    def rows(self, arrays: Mapping[str, Array]) -> int | None:
        """Return how many rows a batched request holds.

        Returns
        -------
        int or None
            None when this model does not answer rows.

        Raises
        ------
        InvalidTensor
            When the inputs disagree.
        """
        if not self.is_batched:
            return None
        first = self.inputs[0].name
        count: int = arrays[first].shape[0]
        for name, array in arrays.items():
            if array.shape[0] != count:
                raise InvalidTensor(
                    name, f"{count} rows like input {first!r}", f"{array.shape[0]} rows"
                )
        return count


def parse(document: Mapping[str, Any]) -> Signature:
    """Read a signature from V2 metadata: `{"inputs": […], "outputs": […]}`.

    Raises
    ------
    BadModel
        When the document is not of that form.
    """
    try:
        return Signature(
            tuple(_parse_spec(item) for item in document["inputs"]),
            tuple(_parse_spec(item) for item in document["outputs"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadModel(f"not a model's metadata: {error!r}") from error


def _parse_spec(item: Mapping[str, Any]) -> TensorSpec:
    if item["datatype"] not in DATATYPES:
        raise ValueError(f"datatype {item['datatype']!r}")
    return TensorSpec(
        str(item["name"]),
        item["datatype"],
        tuple(int(size) for size in item["shape"]),
        tuple(str(name) for name in item.get("classes", ())),
    )
