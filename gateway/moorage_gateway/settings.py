"""What a gateway is told, by flags or by environment variables `MOORAGE_…`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from moorage_gateway import registry
from moorage_serving import bodies, server


class Settings(BaseSettings):
    """One address in front of all deployed models, and the record of their predictions."""

    model_config = SettingsConfigDict(
        env_prefix="MOORAGE_",
        cli_prog_name="moorage-gateway",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        frozen=True,
        extra="ignore",
    )

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="0 takes a free port")
    data: Path = Field(default=Path(".moorage"), description="folder for models and the record")
    database: str = Field(
        default="",
        description="sqlite:///FILE or postgresql://…; default: DATA/predictions.db",
    )
    routes: Path | None = Field(
        default=None, description="folder with ModelDeployments; default: DATA/deployments"
    )
    runtime_timeout_s: float = Field(
        default=60.0, gt=0, description="longest wait for a runtime's answer"
    )
    deploy_timeout_s: float = Field(
        default=120.0, gt=0, description="how long POST /deployments/deploy waits"
    )
    max_body_bytes: int = Field(
        default=bodies.DEFAULT_LIMIT, ge=1, description="largest request, compressed or not"
    )
    max_model_bytes: int = Field(
        default=registry.MAX_UPLOAD_BYTES, ge=1, description="largest model that is uploaded"
    )
    grace_s: int = Field(
        default=server.GRACE_S, ge=0, description="seconds that open requests get after SIGTERM"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    @field_validator("routes")
    @classmethod
    def _not_yet(cls, value: Path | None) -> Path | None:
        if value is not None and str(value) == "kubernetes":
            raise ValueError("expected a folder; the cluster is not a source of routes yet")
        return value
