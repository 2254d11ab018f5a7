"""Settings of `nanosft export`."""

from typing import Any, ClassVar, Final, Literal

from pydantic import Field, field_validator, model_validator

from nanosft.settings.base import StageSettings, Step

GGUF_REFUSAL: Final = (
    "gguf: no released llama.cpp has an architecture that computes nanochat's models: use hf, or nanosft serve"
)


class ExportSettings(StageSettings):
    """What `nanosft export` is told."""

    command: ClassVar[str] = "export"

    model: str | None = Field(
        default=None,
        description="URI of the model: the directory with chatsft_checkpoints/ (or base_checkpoints/).",
        json_schema_extra={"group": "What is exported"},
    )
    data: str | None = Field(default=None, description="URI of conversations instead: a file, prefix or pattern.")
    source: Literal["base", "chat"] | None = Field(
        default=None, description="Which checkpoint of --model: base or chat (default: chat if there is one)."
    )
    tag: str | None = Field(default=None, description="Model tag, such as d20 (default: the largest).")
    step: Step | None = Field(
        default=None, description="Checkpoint: best (by validation loss, the default), last, or a step's number."
    )
    to: Literal["hf", "nanochat", "gguf"] = Field(
        default="hf",
        description="Form: hf for transformers and datasets; nanochat for its own tools; gguf is refused, because no "
        "released llama.cpp computes these models.",
        json_schema_extra={"group": "Form and place"},
    )
    layout: Literal["directory", "flat"] = Field(
        default="directory",
        description="With --to nanochat, of a model: its base directory, or all files in one folder, as its published "
        "weights are.",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Of the weights, with --to hf: float32 as trained, or bfloat16, half the size."
    )
    out: str = Field(description="Prefix for the export; it must be empty.", json_schema_extra={"content": False})
    title: str | None = Field(
        default=None,
        description="Title of the card (default: the name of what is exported).",
        json_schema_extra={"group": "Card"},
    )
    license: str | None = Field(
        default=None, description="License of the export, as the Hub names it, such as mit (default: none is stated)."
    )
    base_repo: str | None = Field(
        default=None, description="The base's name on the Hub, for a model's card, such as karpathy/nanochat-d32."
    )
    dataset_repos: tuple[str, ...] = Field(
        default=(),
        description="Name on the Hub of a data set it was trained on, for a model's card; may be repeated.",
        json_schema_extra={"flag": "--dataset-repo"},
    )
    push: str | None = Field(
        default=None,
        description="Repository on the Hub to upload the export to, such as me/my-model; the token is HF_TOKEN's.",
        json_schema_extra={"group": "Hub", "content": False},
    )
    private: bool = Field(
        default=True,
        description="A repository that --push makes is private.",
        json_schema_extra={"content": False},
    )

    @field_validator("to")
    @classmethod
    def _refuse_gguf(cls, value: str) -> str:
        if value == "gguf":
            raise ValueError(GGUF_REFUSAL)
        return value

    @model_validator(mode="before")
    @classmethod
    def _need_one(cls, values: Any) -> Any:
        if isinstance(values, dict) and bool(values.get("model")) == bool(values.get("data")):
            raise ValueError("give --model or --data, one of them")
        return values

    @model_validator(mode="after")
    def _check_form(self) -> "ExportSettings":
        if self.to == "nanochat" and self.dtype != "float32":
            raise ValueError("--dtype bfloat16: nanochat's own files are float32; it goes with --to hf")
        if self.push and self.to != "hf":
            raise ValueError("--push uploads what --to hf makes")
        return self
