"""Settings of the small commands around a run: `nanosft describe`, `wait`, `submit` and `demo`."""

from typing import ClassVar, Literal

from pydantic import Field

from nanosft.settings.base import StageSettings

Stage = Literal["generate", "mix", "sft", "eval"]


class SubmitSettings(StageSettings):
    """What `nanosft submit` is told."""

    command: ClassVar[str] = "submit"

    run: str = Field(
        description="TOML file that describes the run; k8s/README.md shows one.",
        json_schema_extra={"argument": True},
    )
    apply: bool = Field(default=False, description="Apply the manifests with kubectl instead of printing them.")
    stages: tuple[Stage, ...] = Field(
        default=("generate", "mix", "sft", "eval"),
        min_length=1,
        description="Stage to submit: generate, mix, sft or eval; may be repeated (default: all four).",
        json_schema_extra={"flag": "--stage"},
    )
    manifests: str | None = Field(
        default=None, description="Directory with base/ and overlays/ (default: those that came with nanosft)."
    )


class WaitSettings(StageSettings):
    """What `nanosft wait` is told."""

    command: ClassVar[str] = "wait"

    uri: str = Field(
        description="Prefix whose manifest.json is waited for, or one .jsonl, .jsonl.gz, .jsonl.zst or .parquet file.",
        json_schema_extra={"argument": True},
    )
    timeout_s: float = Field(
        default=3600.0,
        ge=0,
        description="Seconds to wait; then exit code 75. 0 looks once.",
        json_schema_extra={"flag": "--timeout"},
    )
    interval_s: float = Field(
        default=10.0, gt=0, description="Seconds between two looks.", json_schema_extra={"flag": "--interval"}
    )


class DescribeSettings(StageSettings):
    """What `nanosft describe` is told."""

    command: ClassVar[str] = "describe"

    uri: str = Field(
        description="Prefix of a data set or a run (what was given as --out), or of one training state.",
        json_schema_extra={"argument": True},
    )
    json_output: bool = Field(default=False, description="Print one JSON object.", json_schema_extra={"flag": "--json"})


class DemoSettings(StageSettings):
    """What `nanosft demo` is told. The defaults take under five minutes on two cores."""

    command: ClassVar[str] = "demo"

    out: str = Field(default="demo-run", description="Directory (or s3:// prefix) for everything the demo makes.")
    knowledge: str | None = Field(
        default=None, description="URI of the knowledge base the model shall speak from (default: a small one)."
    )
    pretrain_steps: int = Field(default=60, ge=1, description="Steps of pretraining the tiny base (4,096 tokens each).")
    num: int = Field(default=1200, ge=10, description="Synthetic conversations to write.")
    synthetic_share: float = Field(default=0.7, gt=0, lt=1, description="Share of them in the finetuning set.")
    epochs: int = Field(default=3, ge=1, description="Passes over the mixture when finetuning.")
    num_probes: int = Field(default=400, ge=1, description="Probes at most that the models answer in the end.")
    seed: int = Field(default=0, ge=0, description="Seed of everything.")
