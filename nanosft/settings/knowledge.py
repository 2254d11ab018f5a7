"""Settings of `nanosft knowledge check` and `nanosft knowledge draft`."""

from typing import ClassVar

from pydantic import Field, SecretStr

from nanosft.settings.base import StageSettings
from nanosft.settings.models import DEFAULT_MODEL


class KnowledgeCheckSettings(StageSettings):
    """What `nanosft knowledge check` is told."""

    command: ClassVar[str] = "knowledge check"

    uri: str | None = Field(
        default=None,
        description="URI of the knowledge base: Markdown, a README too (default: shipped).",
        json_schema_extra={"argument": True},
    )
    strict: bool = Field(default=False, description="Exit with 3 if there is anything to mend.")
    json_output: bool = Field(
        default=False, description="Print the report as JSON to standard output.", json_schema_extra={"flag": "--json"}
    )


class KnowledgeDraftSettings(StageSettings):
    """What `nanosft knowledge draft` is told."""

    command: ClassVar[str] = "knowledge draft"

    source: str = Field(
        description="URI of the README, or any text, to draft from.",
        json_schema_extra={"group": "What to draft", "flag": "--from"},
    )
    out: str = Field(default="knowledge/self_knowledge.md", description="URI that gets the draft.")
    overwrite: bool = Field(default=False, description="Replace what is at --out already.")
    name: str = Field(default="", description="The assistant's name (default: as the source says).")
    maker: str = Field(default="", description="Who made the assistant (default: as the source says).")
    model: str = Field(
        default=DEFAULT_MODEL,
        min_length=1,
        description="The model's slug.",
        json_schema_extra={"group": "Who drafts"},
    )
    base_url: str = Field(
        default="https://openrouter.ai/api/v1", description="OpenAI-compatible endpoint, without /chat/completions."
    )
    openrouter_api_key: SecretStr | None = Field(
        default=None, description="Key of the endpoint.", json_schema_extra={"env": "OPENROUTER_API_KEY"}
    )
    max_tokens: int = Field(default=16_384, ge=256, description="Longest draft, in tokens.")
    connect_timeout_s: float = Field(default=10.0, gt=0, description="Seconds until a connection must stand.")
    read_timeout_s: float = Field(
        default=300.0, gt=0, description="Seconds without a byte after which the answer is lost."
    )
    max_retries: int = Field(
        default=8, ge=0, description="Retries of a request that failed for a reason that may pass."
    )
