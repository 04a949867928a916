"""Names that the outside world sees: Kubernetes keys, HTTP headers and environment variables."""

from typing import Final

GROUP: Final = "moorage.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "ModelDeployment"
PLURAL: Final = "modeldeployments"
SINGULAR: Final = "modeldeployment"
SHORT_NAME: Final = "mdep"

#: Owner of every field that the operator writes by server-side apply.
FIELD_MANAGER: Final = "moorage-operator"

#: The standard labels on every child; the first two are also its selector.
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_VERSION: Final = "app.kubernetes.io/version"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
#: Which variant of the deployment a child belongs to: `stable` for now.
LABEL_VARIANT: Final = f"{GROUP}/variant"

#: Where a resource came from: a file's path, or `SOURCE_API` for one that
#: `POST /deployments/deploy` made.
ANNOTATION_SOURCE: Final = f"{GROUP}/source"
SOURCE_API: Final = "api"

#: Namespace of a resource that names none.
DEFAULT_NAMESPACE: Final = "default"

#: Header with the id under which a prediction is stored.
HEADER_PREDICTION_ID: Final = "x-prediction-id"
#: Header of the binary tensor extension: bytes of JSON before the tensors.
HEADER_JSON_LENGTH: Final = "inference-header-content-length"
#: Header in which the registry says what a download must hash to; the runtime checks it.
HEADER_MODEL_SHA256: Final = "x-model-sha256"

#: Environment variable with the gateway that resolves `models:/NAME/VERSION`.
ENV_REGISTRY: Final = "MOORAGE_REGISTRY"

#: Exit status of a runtime whose model can never be served as it is.
EXIT_MODEL_REJECTED: Final = 3
