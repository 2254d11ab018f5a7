"""Settings of `nanosft serve`."""

import ipaddress
from typing import ClassVar

from pydantic import Field, SecretStr, model_validator

from nanosft.settings.base import StageSettings, Step
from nanosft.settings.models import name_models


class ServeSettings(StageSettings):
    """What `nanosft serve` is told."""

    command: ClassVar[str] = "serve"

    model: tuple[str, ...] = Field(
        min_length=1,
        description="Model to serve, as URI or name=URI; may be repeated. Without a name, the URI's last part is it.",
        json_schema_extra={"group": "Models", "metavar": "[NAME=]URI"},
    )
    step: Step | None = Field(
        default=None, description="Checkpoint: best (by validation loss, the default), last, or a step's number."
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on; none but loopback without a key.",
        json_schema_extra={"group": "Address"},
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    api_key: SecretStr | None = Field(
        default=None,
        description="Key that clients must send; needed on any address but loopback.",
        json_schema_extra={"env": "NANOSFT_API_KEY"},
    )
    insecure: bool = Field(default=False, description="Listen beyond loopback without a key.")
    tools: bool = Field(
        default=False,
        description="Evaluate the sums and letter counts that the model puts in python tags.",
        json_schema_extra={"group": "Answers"},
    )
    device: str = Field(default="auto", description="Device: auto, cpu, cuda, cuda:1, …")
    max_tokens: int = Field(default=1024, ge=1, description="Longest answer, in tokens, whatever a request asks for.")
    max_batch: int = Field(
        default=64, ge=1, description="Answers that a model writes at a time.", json_schema_extra={"group": "Load"}
    )
    max_queue: int = Field(default=256, ge=0, description="Answers that wait for their turn; more are refused (429).")
    max_connections: int = Field(default=512, ge=1, description="Requests at a time; more are refused (503).")
    max_body_bytes: int = Field(default=1 << 20, ge=1024, description="Largest body; larger ones are refused (413).")
    prefill_tokens: int = Field(default=256, ge=1, description="Tokens of prompts that are read between two tokens.")
    grace_s: float = Field(
        default=25.0,
        ge=0,
        description="Seconds that running answers have to finish after SIGTERM.",
        json_schema_extra={"flag": "--grace"},
    )

    @property
    def models(self) -> dict[str, str]:
        """URI by name."""
        return name_models(self.model)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _check(self) -> "ServeSettings":
        name_models(self.model)
        if not self.is_local and self.api_key is None and not self.insecure:
            raise ValueError(f"--host {self.host}: others could reach it: set NANOSFT_API_KEY, or give --insecure")
        if self.api_key is not None and not self.api_key.get_secret_value().strip():
            raise ValueError("NANOSFT_API_KEY is empty")
        return self
