"""Settings of `nanosft models`."""

from typing import Any, ClassVar

from pydantic import Field, SecretStr

from nanosft.settings.base import StageSettings
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.shares import Models

_GENERATE = GenerateSettings.model_fields


class ModelsSettings(StageSettings):
    """What `nanosft models` is told. Options of generate have their names, and so their variables."""

    command: ClassVar[str] = "models"

    word: str = Field(
        default="",
        description="Only models whose slug holds this.",
        json_schema_extra={"argument": True, "group": "What to list"},
    )
    limit: int = Field(default=20, ge=1, description="Most models to list.")
    free: bool = Field(default=False, description="List models that cost nothing too; they answer few requests a day.")
    knowledge: str | None = Field(
        default=None,
        description=_GENERATE["knowledge"].description,
        json_schema_extra={"group": "The plan whose cost is told"},
    )
    dimensions: str | None = Field(default=None, description=_GENERATE["dimensions"].description)
    tone: str = Field(default="", description=_GENERATE["tone"].description)
    num: int = Field(default=1000, ge=1, le=10_000_000, description=_GENERATE["num"].description)
    max_messages: int | None = Field(
        default=None, ge=2, le=400, multiple_of=2, description=_GENERATE["max_messages"].description
    )
    max_tokens: int = Field(default=2048, ge=16, description=_GENERATE["max_tokens"].description)
    concurrency: int = Field(
        default=64, ge=1, le=4096, description="Rows in flight before the first has put the prompt into the cache."
    )
    model: Models = Field(
        default=_GENERATE["model"].default, description="Models to list first, whatever they cost; may be repeated."
    )
    base_url: str = Field(
        default=_GENERATE["base_url"].default,
        description=_GENERATE["base_url"].description,
        json_schema_extra={"group": "Where"},
    )
    openrouter_api_key: SecretStr | None = Field(
        default=None,
        description="Key of the endpoint; OpenRouter lists its models without one.",
        json_schema_extra={"env": "OPENROUTER_API_KEY"},
    )
    timeout_s: float = Field(default=20.0, gt=0, description="Seconds to wait for the list.")
    json_output: bool = Field(
        default=False, description="Print JSON to standard output.", json_schema_extra={"flag": "--json"}
    )

    def plan_settings(self) -> GenerateSettings:
        """What `generate` would be told for the plan."""
        shared = self.model_fields_set & _GENERATE.keys() - {"json_output"}
        values: dict[str, Any] = {name: getattr(self, name) for name in shared}
        return GenerateSettings(out="models", read_timeout_s=self.timeout_s, **values)
