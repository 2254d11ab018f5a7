"""Settings of `nanosft chat`."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from nanosft.settings.base import StageSettings


class ChatSettings(StageSettings):
    """What `nanosft chat` is told."""

    command: ClassVar[str] = "chat"

    model: str = Field(
        description="URI of the directory with chatsft_checkpoints/ (or base_checkpoints/).",
        json_schema_extra={"group": "Model and message"},
    )
    prompt: str | None = Field(
        default=None,
        description="Answer this one message and exit; without it, an interactive conversation.",
        json_schema_extra={"short": "-p"},
    )
    source: Literal["base", "chat"] | None = Field(
        default=None, description="Which checkpoint: base or chat (default: chat if there is one)."
    )
    tag: str | None = Field(default=None, description="Model tag, such as d20 (default: the largest).")
    step: int | None = Field(default=None, ge=0, description="Checkpoint step (default: the newest).")
    temperature: float = Field(
        default=0.6,
        ge=0.0,
        description="Sampling temperature; 0 always takes the likeliest token.",
        json_schema_extra={"group": "Sampling"},
    )
    top_k: int | None = Field(default=50, ge=1, description="Sample among the k likeliest tokens.")
    max_tokens: int = Field(default=256, ge=1, description="Longest answer, in tokens.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of the sampling.")
    device: str = Field(
        default="auto",
        description="Device: auto, cpu, cuda, cuda:1, …",
        json_schema_extra={"group": "Machine and output"},
    )
    json_output: bool = Field(
        default=False,
        description="With --prompt: print one JSON object with the answer.",
        json_schema_extra={"flag": "--json"},
    )

    @model_validator(mode="after")
    def _need_prompt(self) -> "ChatSettings":
        if self.json_output and self.prompt is None:
            raise ValueError("--json needs --prompt: a conversation on the terminal has no JSON form")
        return self
