"""What the rest of the runtime needs of a model: one method wide."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from moorage_api.signature import Signature
from moorage_api.tensors import Array, Tensor


class Predictor(Protocol):
    """A loaded model."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""

    def run(self, arrays: Mapping[str, Array], outputs: Sequence[str] | None) -> list[Tensor]:
        """Compute outputs.

        Parameters
        ----------
        arrays
            By input name; they fit the signature.
        outputs
            Names of the outputs wanted, in their order; None wants all.

        Raises
        ------
        ModelFailed
            When the graph refuses these values.
        """
