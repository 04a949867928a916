"""What a runtime is told, by flags or by environment variables `MOORAGE_…`."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

from moorage_api import keys, names
from moorage_serving import bodies, server

Segment = Annotated[str, StringConstraints(pattern=names.SEGMENT_PATTERN, max_length=63)]


class Settings(BaseSettings):
    """Serve one ONNX model over the Open Inference Protocol v2."""

    model_config = SettingsConfigDict(
        env_prefix="MOORAGE_",
        cli_prog_name="moorage-runtime",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        frozen=True,
        extra="ignore",
    )

    model: str = Field(
        min_length=1,
        description="address of an ONNX file or a Triton-style folder: a path, file:, http(s):, "
        "s3:, gs:, az:, sftp:, hf: or models:/NAME/VERSION",
    )
    name: Segment = Field(default="model", description="name in /v2/models/NAME")
    version: Segment = Field(default="1", description="version in /v2/models/NAME/versions/VERSION")
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="SHA-256 that the ONNX file must have"
    )
    registry: str = Field(
        default="", description=f"URL of the gateway that has models:/… ({keys.ENV_REGISTRY})"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    http_port: int = Field(default=9000, ge=0, le=65535, description="0 takes a free port")
    max_batch_size: int = Field(default=64, ge=1, description="most rows in one run of the model")
    max_delay_ms: int = Field(default=0, ge=0, description="longest wait for a batch")
    intra_op_threads: int = Field(
        default=0, ge=0, description="threads in an operator; 0: as many as this process has CPUs"
    )
    inter_op_threads: int = Field(default=1, ge=1, description="operators side by side")
    warmup: bool = Field(default=True, description="run the model before it is ready")
    max_body_bytes: int = Field(
        default=bodies.DEFAULT_LIMIT, ge=1, description="largest request, compressed or not"
    )
    grace_s: int = Field(
        default=server.GRACE_S, ge=0, description="seconds that open requests get after SIGTERM"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
