"""KServe's (and TensorFlow Serving's) V1: `POST /v1/models/NAME:predict`.

`{"instances": [row, …]}` or `{"inputs": …}` gives `{"predictions": [prediction, …]}`. Source:
KServe's "V1 protocol" page.
"""

from moorage_api import rows
from moorage_api.errors import InvalidBody
from moorage_api.signature import Signature
from moorage_api.tensors import Tensor, kind_of, may_hold_literals
from moorage_gateway.dialects.call import Call, Rendered, load_object, render_json
from moorage_gateway.routing import Table


def parse(call: Call, body: bytes, table: Table) -> None:
    """Read a request.

    Raises
    ------
    MoorageError
        Whatever is wrong with it.
    """
    signature = call.aim(table.model(call.target.name, call.target.version))
    document = load_object(body)
    # TensorFlow Serving's clients name the default signature.
    if document.get("signature_name", "serving_default") != "serving_default":
        raise InvalidBody("'signature_name': an ONNX model has only 'serving_default'")
    if ("instances" in document) == ("inputs" in document):
        raise InvalidBody("expected either 'instances' or 'inputs'")
    key = "instances" if "instances" in document else "inputs"
    value = document[key]
    if key == "instances" and type(value) is not list:
        raise InvalidBody(f"'instances': expected a list of rows, got {kind_of(value)}")
    if key == "instances" and not value:
        raise InvalidBody("'instances': expected at least one row, got none")
    given = rows.parse(value, signature, literals=may_hold_literals(body))
    if key == "instances" and given.many is False:
        raise InvalidBody("'instances': expected a list of rows, got a single row")
    call.tensors = given.tensors
    call.render = lambda outputs: _render(signature, given, outputs)


def _render(signature: Signature, given: rows.Parsed, outputs: list[Tensor]) -> Rendered:
    value = rows.render(outputs, signature, given)
    return render_json({"predictions": [value] if given.many is False else value})
