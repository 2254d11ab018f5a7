"""Settings of the small commands around a run: `nanosft describe`, `wait`, `submit` and `demo`."""

from typing import ClassVar, Final, Literal

from pydantic import Field, model_validator

from nanosft.kubernetes import RESUMABLE
from nanosft.settings.base import StageSettings

Stage = Literal["generate", "mix", "sft", "eval", "report", "serve"]
CHAIN: Final[tuple[Stage, ...]] = ("generate", "mix", "sft", "eval", "report")
"""The stages that end: what is submitted where nobody says which."""
_ACTIONS: Final = ("status", "logs", "delete")


class SubmitSettings(StageSettings):
    """What `nanosft submit` is told."""

    command: ClassVar[str] = "submit"

    run: tuple[str, ...] = Field(
        min_length=1,
        max_length=2,
        description="TOML file that describes the run (k8s/README.md shows one); status, logs or delete before it.",
        json_schema_extra={"argument": True},
    )
    apply: bool = Field(
        default=False, description="Look at the cluster with kubectl, say what will be done, and do it."
    )
    force: bool = Field(default=False, description="Replace jobs that run with other settings too (--apply).")
    pin: bool = Field(
        default=False,
        description="Name images by digest, as the registry has them (needs crane, skopeo or docker).",
    )
    stages: tuple[Stage, ...] = Field(
        default=(),
        description="Stage: generate, mix, sft, eval, report or serve; may be repeated (default: all but serve; for "
        "status, logs and delete all).",
        json_schema_extra={"flag": "--stage"},
    )
    follow: bool = Field(default=False, description="Go on showing what is logged (logs).")
    manifests: str | None = Field(
        default=None, description="Directory with base/ and overlays/ (default: those that came with nanosft)."
    )

    @property
    def action(self) -> str:
        """What is asked for: `submit`, `status`, `logs` or `delete`."""
        return self.run[0] if len(self.run) > 1 else "submit"

    @property
    def file(self) -> str:
        """The run file."""
        return self.run[-1]

    @model_validator(mode="after")
    def _check_action(self) -> "SubmitSettings":
        if len(self.run) > 1 and self.run[0] not in _ACTIONS:
            raise ValueError(f"{self.run[0]}: write {', '.join(_ACTIONS)}, or the run file alone")
        if self.action != "submit" and (self.apply or self.force or self.pin):
            raise ValueError(f"submit {self.action}: --apply, --force and --pin are for the run file alone")
        if self.follow and self.action != "logs":
            raise ValueError("--follow: is for submit logs")
        return self


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
    failure_grace_s: float = Field(
        default=300.0,
        ge=0,
        description="Seconds that a failure marked before the wait may stand: the stage's next start removes it.",
        json_schema_extra={"flag": "--failure-grace"},
    )
    resume: str | None = Field(
        default=None,
        pattern=f"^{RESUMABLE.pattern}$",
        description="Suspended job to resume then, from a pod that may: jobs/NAME, pytorchjobs/NAME or trainjobs/NAME.",
    )
    queue: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Kueue's LocalQueue to put the job of --resume into, instead of resuming it.",
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
