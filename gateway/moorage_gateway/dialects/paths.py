"""Which dialect, and which model, a path asks for."""

import re
from functools import lru_cache
from typing import Final

from moorage_api import v2
from moorage_gateway.dialects.call import Target

_SEGMENT: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_NAME: Final = rf"(?P<name>{_SEGMENT}(?:/{_SEGMENT})?)"
_PREDICT: Final = re.compile(rf"/predict/{_NAME}/?")
_V1: Final = re.compile(rf"/v1/models/{_NAME}(?:/versions/(?P<version>{_SEGMENT}))?:predict")
_SELDON: Final = re.compile(
    rf"(?:/seldon/(?P<name>{_SEGMENT}/{_SEGMENT}))?/api/v(?:1\.0|0\.1)/predictions/?"
)


@lru_cache(maxsize=4096)
def target_of(path: str) -> Target | None:
    """Return what a POST to `path` asks to predict; None for every other path."""
    if path in ("/predict", "/predict/"):
        return Target("predict")
    if found := _PREDICT.fullmatch(path):
        return Target("predict", found["name"])
    model = v2.parse_path(path)
    if model is not None:
        return Target("v2", model.name, model.version) if model.verb == "infer" else None
    if found := _V1.fullmatch(path):
        return Target("v1", found["name"], found["version"] or "")
    if found := _SELDON.fullmatch(path):
        return Target("seldon", found["name"] or "")
    return None
