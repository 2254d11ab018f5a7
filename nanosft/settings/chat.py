"""Settings of `nanosft chat`."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from nanosft.settings.base import StageSettings, Step
from nanosft.settings.models import name_models


class ChatSettings(StageSettings):
    """What `nanosft chat` is told."""

    command: ClassVar[str] = "chat"

    model: tuple[str, ...] = Field(
        min_length=1,
        max_length=2,
        description="URI of the directory with chatsft_checkpoints/ (or base_checkpoints/), or name=URI; given twice, "
        "both answer side by side.",
        json_schema_extra={"metavar": "[NAME=]URI", "group": "Model and message"},
    )
    prompt: str | None = Field(
        default=None,
        description="Answer this one message and exit; without it, a conversation: on a terminal, or a line a message.",
        json_schema_extra={"short": "-p"},
    )
    source: Literal["base", "mid", "chat", "rl"] | None = Field(
        default=None, description="Which checkpoint: base, mid, chat or rl (default: chat if there is one)."
    )
    tag: str | None = Field(default=None, description="Model tag, such as d20 (default: the largest).")
    step: Step | None = Field(
        default=None, description="Checkpoint: best (by validation loss, the default), last, or a step's number."
    )
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
        description="With --prompt, or messages from a pipe: print a JSON object for each answer.",
        json_schema_extra={"flag": "--json"},
    )
    cache_dir: str | None = Field(
        default=None,
        description="Directory for models from s3:// (default: nanosft/models under $XDG_CACHE_HOME or ~/.cache).",
    )
    cache_gib: float = Field(
        default=20.0,
        ge=0,
        description="Largest size of that directory; the least recently used models leave it; 0: keep none.",
    )

    @property
    def models(self) -> dict[str, str]:
        """URI by name."""
        return name_models(self.model)

    @model_validator(mode="after")
    def _check_names(self) -> "ChatSettings":
        name_models(self.model)
        return self
