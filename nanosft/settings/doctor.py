"""Settings of `nanosft doctor`."""

from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from nanosft.settings.base import StageSettings
from nanosft.settings.generate import GenerateSettings, Provider
from nanosft.settings.shares import Models, split_models

_GENERATE = GenerateSettings.model_fields


class DoctorSettings(StageSettings):
    """What `nanosft doctor` is told. Options of generate and train have their names, and so their variables."""

    command: ClassVar[str] = "doctor"

    out: str | None = Field(
        default=None,
        description="Prefix to write to, as will be given as --out: a probe object is put there and deleted again.",
        json_schema_extra={"group": "Store"},
    )
    read: tuple[str, ...] = Field(
        default=(), description="Prefix or object that must be there and readable; may be repeated."
    )
    provider: Provider = Field(
        default="openrouter",
        description="Who will write conversations: of openrouter, the endpoint at --base-url, key and model are "
        "checked; local and offline ask nobody.",
        json_schema_extra={"group": "Chat API"},
    )
    model: Models = Field(
        default=_GENERATE["model"].default,
        description="Slug of the model, which must still be offered; may be repeated.",
    )
    judge_model: str | None = Field(
        default=None,
        min_length=1,
        description="Slug of a judge, which must be offered and bind its answers to a schema.",
    )
    base_url: str = Field(default=_GENERATE["base_url"].default, description="OpenAI-compatible endpoint.")
    openrouter_api_key: SecretStr | None = Field(
        default=None, description="Key of the endpoint.", json_schema_extra={"env": "OPENROUTER_API_KEY"}
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Device to train on: auto, cpu or cuda.", json_schema_extra={"group": "Machine"}
    )
    ranks: int | None = Field(
        default=None,
        ge=0,
        description="Processes that reach one another, on this machine; 0: none (default: one a GPU, at least 2).",
    )
    work_dir: str | None = Field(
        default=None, description="Directory for what mix spills (default: the system's temporary one)."
    )
    timeout_s: float = Field(
        default=20.0, gt=0, description="Seconds to wait for the chat API and for other ranks, each."
    )
    json_output: bool = Field(default=False, description="Print one JSON object.", json_schema_extra={"flag": "--json"})

    @property
    def slugs(self) -> tuple[str, ...]:
        """The models, without their shares; none where nobody of the endpoint writes."""
        return tuple(split_models(self.model)) if self.provider == "openrouter" else ()
