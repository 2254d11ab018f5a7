"""What a run file says, checked against the stages' own settings. Pure."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from nanosft.errors import ConfigError
from nanosft.foreign import parse_toml
from nanosft.settings.base import StageSettings
from nanosft.settings.evaluate import EvalSettings
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.mix import MixSettings
from nanosft.settings.report import ReportSettings
from nanosft.settings.serve import ServeSettings
from nanosft.settings.train import TrainSettings
from nanosft.store import join_uri

RECIPE_PATH: Final = "/etc/nanosft/recipe.toml"
"""Where mix's pod has its recipe."""
_TRAINJOB: Final = "trainjob"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME: Final = re.compile(
    r"(?:^|_)(?:KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)(?!.*_FILE$)(?:_|$)", re.IGNORECASE
)
"""What is secret by its name; `…_FILE` names a file that holds it."""


_IMAGE: Final = re.compile(r"[a-zA-Z0-9][\w.:/-]*(@sha256:[0-9a-f]+)?", re.ASCII)
_NO_URI: Final = re.compile(r"[\s\"'\\]")
_NAME: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""A DNS label, as Kubernetes wants most names."""


def _check_image(image: str) -> str:
    if _IMAGE.fullmatch(image) is None:
        raise ValueError("is no image: write name:tag or name@sha256:…")
    return image


def _check_uri(uri: str) -> str:
    """Refuse what could end a string of the recipe, which holds it."""
    if _NO_URI.search(uri) or not uri.isprintable():
        raise ValueError("is no URI: it holds white space, a quote or a character that cannot be printed")
    return uri


Image = Annotated[str, AfterValidator(_check_image)]
Uri = Annotated[str, AfterValidator(_check_uri)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Images(_Table):
    """Image references for this cluster; None keeps the manifests' own."""

    cpu: Image | None = None
    cuda: Image | None = None


class Sft(_Table):
    """How large the training job is."""

    nodes: int = Field(default=2, ge=1, le=10_000, strict=True)
    ranks_per_node: int = Field(default=1, ge=1, le=1024, strict=True)


class RunFile(_Table):
    """What a run file says; see the module's docstring.

    Attributes:
        name: A DNS label, short enough for pod names.
        store: Where the run's prefix `<store>/<name>` goes.
        base: URI of the nanochat base; None is `<store>/base`.
        overlay: "base", or a directory of overlays/.
        trainer: What runs sft; None takes what the overlay's name says, and with a queue the TrainJob, because Kueue
            manages PyTorchJobs no more unless an administrator turns that on.
        hold: Whether sft and eval start suspended until what they need is there.
        gang: What starts the training job's pods all at once or not at all; None leaves that to the scheduler.
        priority_class: PriorityClass of all pods; None is the cluster's default.
        namespace: Where the objects go; it has to be there.
        recipe: Path of mix's recipe, relative to the run file; None mixes the generated conversations alone.
        env: Variables that every container gets, such as AWS_ENDPOINT_URL and AWS_REGION.
        images: For this cluster.
        generate: Settings of `nanosft generate`.
        mix: Settings of `nanosft mix`.
        train: Settings of `nanosft train`.
        eval: Settings of `nanosft eval`.
        report: Settings of `nanosft report`.
        serve: Settings of `nanosft serve`.
        sft: Size of the training job; None keeps the overlay's.
        parallelism: Most generator pods at a time; None runs all shards at once.
        queue: Kueue's LocalQueue that the jobs wait in; None starts them at once.
    """

    name: str = Field(pattern=r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$")
    store: Uri = "s3://nanosft"
    base: Uri | None = None
    overlay: str = Field(default="base", pattern=r"^[a-z0-9-]+$")
    trainer: Literal["pytorchjob", "trainjob"] | None = None
    hold: bool = Field(default=True, strict=True)
    gang: Literal["coscheduling", "volcano"] | None = None
    priority_class: str | None = Field(default=None, pattern=_NAME)
    namespace: str = Field(default="nanosft", pattern=_NAME)
    recipe: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    images: Images = Images()
    generate: dict[str, Any] = Field(default_factory=dict)
    mix: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    eval: dict[str, Any] = Field(default_factory=dict)
    report: dict[str, Any] = Field(default_factory=dict)
    serve: dict[str, Any] = Field(default_factory=dict)
    sft: Sft | None = None
    parallelism: int | None = Field(default=None, ge=1, le=100_000, strict=True)
    queue: str | None = Field(default=None, pattern=_NAME)

    @model_validator(mode="after")
    def _check_trainer(self) -> "RunFile":
        if self.trainer == "pytorchjob" and self.overlay.endswith(_TRAINJOB):
            raise ValueError(f"trainer: the overlay {self.overlay} has a TrainJob")
        return self

    @field_validator("serve")
    @classmethod
    def _check_serve(cls, serve: dict[str, Any]) -> dict[str, Any]:
        if fixed := serve.keys() & {"host", "port"}:
            raise ValueError(f"{min(fixed)}: is the manifest's, whose Service and probes name it")
        return serve

    @field_validator("env")
    @classmethod
    def _check_env(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if _VARIABLE.fullmatch(name) is None:
                raise ValueError(f"{name[:40]!r} is no name of a variable: letters, digits and _")
            if _SECRET_NAME.search(name):
                raise ValueError(f"{name}: a ConfigMap is no place for it: put it into the Secret (k8s/README.md)")
            if not value.isprintable():
                raise ValueError(f"{name}: its value holds characters that cannot be printed, such as a line end")
        return env

    @property
    def prefix(self) -> str:
        """`<store>/<name>`, under which everything of the run lies."""
        return join_uri(self.store, self.name)

    @property
    def is_batch(self) -> bool:
        """Whether generate's pods come back for their batches instead of waiting for them."""
        return self.generate.get("mode") == "batch" and not self.generate.get("wait", False)

    @property
    def is_trainjob(self) -> bool:
        """Whether sft is a TrainJob rather than a PyTorchJob."""
        if self.trainer is not None:
            return self.trainer == "trainjob"
        return self.queue is not None or self.overlay.endswith(_TRAINJOB)

    @property
    def folder(self) -> str:
        """The directory of `k8s/` that the run stands on."""
        if self.is_trainjob and not self.overlay.endswith(_TRAINJOB):
            return "overlays/trainjob" if self.overlay == "base" else f"overlays/{self.overlay}-{_TRAINJOB}"
        return "base" if self.overlay == "base" else f"overlays/{self.overlay}"


def parse_run(text: str, *, where: str) -> RunFile:
    """Parse a run file and check the stages' settings in it against their own classes.

    Raises:
        ConfigError: A key is unknown, missing or out of bounds; the message names it.
    """
    table = parse_toml(text, where=where)
    try:
        run = RunFile.model_validate(table)
        _check(GenerateSettings, {"out": run.prefix, **run.generate}, "generate")
        _check(MixSettings, {"recipe": RECIPE_PATH, "out": run.prefix, **run.mix}, "mix")
        _check(TrainSettings, {"base": "base", "data": "data", "out": run.prefix, **run.train}, "train")
        _check(EvalSettings, {"model": "model", "out": run.prefix, **run.eval}, "eval")
        _check(ReportSettings, {"uris": ["model"], **run.report}, "report")
        _check(ServeSettings, {"model": ["model"], **run.serve}, "serve")
    except ValidationError as exc:
        first = exc.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {key}: {message}" if key else f"{where}: {message}") from exc
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc}") from exc
    return run


def _check(cls: type[StageSettings], values: dict[str, Any], table: str) -> None:
    try:
        made = cls(**values)
    except ValidationError as exc:
        first = exc.errors()[0]
        key = ".".join(map(str, (table, *first["loc"])))
        raise ConfigError(f"{key}: {first['msg'].removeprefix('Value error, ')}") from exc
    for name, value in values.items():
        texts = value if isinstance(value, list) else [value]
        if not all(text.isprintable() for text in texts if isinstance(text, str)):
            raise ConfigError(f"{table}.{name}: holds characters that cannot be printed, such as a line end")
        if isinstance(getattr(made, name.lower(), None), SecretStr):
            raise ConfigError(f"{table}.{name}: a ConfigMap is no place for it: put it into the Secret (k8s/README.md)")
        if isinstance(value, bool) and not isinstance(getattr(made, name, value), bool):
            raise ConfigError(f"{table}.{name}: Input should be a number, not {str(value).lower()}")
