"""The peer: one FastAPI route in front of ONNX Runtime, as a team would write it by hand.

Pydantic checks the request and the answer, one thread runs the model, nothing is logged and there
are no metrics. `MODEL` names the ONNX file, the last argument of the command the port.
"""

import os
import sys
from typing import Any

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Tensor(BaseModel):
    """A tensor of the Open Inference Protocol."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class InferRequest(BaseModel):
    """Request of the Open Inference Protocol."""

    inputs: list[Tensor]


class InferResponse(BaseModel):
    """Its answer."""

    model_name: str
    model_version: str
    outputs: list[Tensor]


_DATATYPES = {"int64": "INT64", "float32": "FP32"}


def build(path: str) -> FastAPI:
    """Make the application around the model at `path`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    app = FastAPI()

    @app.get("/v2/health/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v2/models/iris/infer")
    async def infer(body: InferRequest) -> InferResponse:
        feed: dict[str, Any] = {
            item.name: np.array(item.data, np.float32).reshape(item.shape) for item in body.inputs
        }
        outputs = [
            Tensor(
                name=name,
                datatype=_DATATYPES[str(array.dtype)],
                shape=list(array.shape),
                data=array.ravel().tolist(),
            )
            for name, array in zip(names, session.run(None, feed), strict=True)
        ]
        return InferResponse(model_name="iris", model_version="1", outputs=outputs)

    return app


if __name__ == "__main__":
    uvicorn.run(build(os.environ["MODEL"]), port=int(sys.argv[1]), log_level="warning")
