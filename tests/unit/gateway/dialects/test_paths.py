"""What a path asks for."""

import pytest

from moorage_gateway.dialects.call import Target
from moorage_gateway.dialects.paths import target_of


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/predict", Target("predict")),
        ("/predict/", Target("predict")),
        ("/predict/iris", Target("predict", "iris")),
        ("/predict/iris/", Target("predict", "iris")),
        ("/predict/classifier_prod.v2", Target("predict", "classifier_prod.v2")),
        ("/predict/payments/fraud", Target("predict", "payments/fraud")),
        ("/v2/models/iris/infer", Target("v2", "iris")),
        ("/v2/models/iris/infer/", Target("v2", "iris")),
        ("/v2/models/iris/versions/2/infer", Target("v2", "iris", "2")),
        ("/v2/models/payments/fraud/infer", Target("v2", "payments/fraud")),
        ("/v2/models/payments/fraud/versions/2/infer", Target("v2", "payments/fraud", "2")),
        ("/v1/models/iris:predict", Target("v1", "iris")),
        ("/v1/models/payments/fraud:predict", Target("v1", "payments/fraud")),
        ("/v1/models/iris/versions/2:predict", Target("v1", "iris", "2")),
        ("/api/v1.0/predictions", Target("seldon")),
        ("/api/v1.0/predictions/", Target("seldon")),
        ("/api/v0.1/predictions", Target("seldon")),
        ("/seldon/payments/fraud/api/v1.0/predictions", Target("seldon", "payments/fraud")),
        ("/seldon/payments/fraud/api/v0.1/predictions", Target("seldon", "payments/fraud")),
    ],
)
def test_a_path_names_its_dialect_model_and_version(path: str, target: Target) -> None:
    assert target_of(path) == target


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/predictions",
        "/predict/a/b/c",
        "/predict//iris",
        "/predict/../iris",
        "/predict/iris\n",
        "/predict/-iris",
        "/predictiris",
        "/x/predict/iris",
        "/v2/models/iris",
        "/v2/models/iris/ready",
        "/v2/models/infer",
        "/v2/models/a/b/c/infer",
        "/v2/models//infer",
        "/v2/repository/index",
        "/v1/models/iris",
        "/v1/models/iris:explain",
        "/v1/models/:predict",
        "/v1/models/iris:predict/",
        "/seldon/fraud/api/v1.0/predictions",
        "/seldon/payments/fraud/api/v1.0/feedback",
        "/api/v2.0/predictions",
        "/api/v1x0/predictions",
        "/deployments/deploy",
    ],
)
def test_every_other_path_is_not_a_prediction(path: str) -> None:
    assert target_of(path) is None
