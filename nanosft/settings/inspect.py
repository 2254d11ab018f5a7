"""Settings of `nanosft inspect`."""

from typing import ClassVar

from pydantic import Field

from nanosft.conversation import Format
from nanosft.settings.base import StageSettings


class InspectSettings(StageSettings):
    """What `nanosft inspect` is told."""

    command: ClassVar[str] = "inspect"

    uri: str = Field(
        description="A file, a prefix, or a pattern with * of conversations in any accepted format.",
        json_schema_extra={"argument": True},
    )
    format: Format = Field(default="auto", description="Format of the rows (default: told by their keys).")
    tokenizer: str | None = Field(default=None, description="URI of the base: count its tokens too.")
    samples: int = Field(default=3, ge=0, le=100, description="Conversations to show, chosen by the seed.")
    openings: int = Field(default=10, ge=0, le=1000, description="Most frequent first messages to show.")
    seed: int = Field(default=0, ge=0, description="Seed of the samples.")
    json_output: bool = Field(default=False, description="Print one JSON object.", json_schema_extra={"flag": "--json"})
