"""Settings of `nanosft demo`."""

from typing import ClassVar

from pydantic import Field

from nanosft.settings.base import StageSettings


class DemoSettings(StageSettings):
    """What `nanosft demo` is told. The defaults take under five minutes on two cores."""

    command: ClassVar[str] = "demo"

    out: str = Field(default="demo-run", description="Directory (or s3:// prefix) for everything the demo makes.")
    knowledge: str = Field(
        default="knowledge/self_knowledge.md", description="URI of the knowledge base the model shall speak from."
    )
    pretrain_steps: int = Field(
        default=160, ge=1, description="Steps of pretraining the tiny base (4,096 tokens each)."
    )
    num: int = Field(default=600, ge=10, description="Synthetic conversations to write.")
    epochs: int = Field(default=4, ge=1, description="Passes over the mixture when finetuning.")
    seed: int = Field(default=0, ge=0, description="Seed of everything.")
