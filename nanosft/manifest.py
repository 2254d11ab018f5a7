"""A manifest: what a finished data set or checkpoint is. Its objects, their hashes, its counts and its lineage.

Pure: the store reads and puts it. A manifest is put last, when all it names is up and checked, so a reader may believe
it. Its bytes depend on its content alone (no clock, sorted keys): equal manifests are equal objects.
"""

import hashlib
import itertools
from collections.abc import Iterable
from typing import Any, Final, Literal

import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)
from pydantic_core import to_jsonable_python

from nanosft import __version__
from nanosft.errors import ConfigError, DataError

FORMAT: Final = 1
MANIFEST_KEY: Final = "manifest.json"
EVALUATION_KEY: Final = "evaluation.json"
"""A note beside a model's manifest: URI and manifest hash of its newest evaluation."""

Kind = Literal[
    "generated",
    "generated-shard",
    "mixture",
    "audited",
    "state",
    "model",
    "evaluation",
    "exported-model",
    "exported-data",
]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ManifestObject(_Record):
    """One object of the set: `key` is relative to the manifest's prefix; rows only where it is JSONL."""

    key: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    num_rows: int | None = Field(default=None, ge=0)


class Parent(_Record):
    """What the set was made from: a URI and the SHA-256 of its manifest, or of the object itself.

    `etag` is a shorter way to see that it is still the same, where the store has one; left out where there is none.
    """

    uri: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    etag: str | None = None

    @model_serializer(mode="wrap")
    def _leave_out_none(self, to_dict: SerializerFunctionWrapHandler) -> dict[str, str]:
        return {name: value for name, value in to_dict(self).items() if value is not None}


class Manifest(_Record):
    """What a finished set is.

    Attributes:
        format: Version of this format; a newer one than `FORMAT` is refused.
        kind: What the set holds.
        name: The run's name, for people.
        objects: Sorted by key, which are all different; given in any order.
        counts: Integers or tables of them, such as rows accepted and refused by reason.
        cost_usd: What was paid for the set, in US dollars; None where nothing is ever paid.
        settings: The settings that decide the content; two runs with equal ones make equal sets. Like `counts`, held
            as the JSON values that they are written as: a tuple is a list, a path is text.
        complete: False while rows of a shard are missing.
    """

    format: int = Field(default=FORMAT, ge=1, le=FORMAT, strict=True)
    kind: Kind
    name: str
    objects: tuple[ManifestObject, ...]
    counts: dict[str, Any] = Field(default_factory=dict)
    cost_usd: float | None = None
    parents: tuple[Parent, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    complete: bool = True
    nanosft_version: str = __version__

    @field_validator("objects")
    @classmethod
    def _sort(cls, objects: tuple[ManifestObject, ...]) -> tuple[ManifestObject, ...]:
        ordered = sort_objects(objects)
        for one, other in itertools.pairwise(ordered):
            if one.key == other.key:
                raise ValueError(f"{one.key!r} is named twice")
        return ordered

    @field_validator("counts", "settings")
    @classmethod
    def _tojson_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        return json_values(values)

    def to_bytes(self) -> bytes:
        """Indented JSON with sorted keys and a last line end; parses back to an equal manifest."""
        options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        return orjson.dumps(self.model_dump(mode="json"), option=options)

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of its bytes: what a child names as its parent."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def num_rows(self) -> int:
        """Rows over all objects that have any."""
        return sum(item.num_rows or 0 for item in self.objects)


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Parse a manifest's bytes.

    Args:
        data: The object's bytes.
        where: Its URI, for errors.

    Raises:
        DataError: It is no manifest, or one of a newer format.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise DataError(f"{where}: not a manifest: {exc}") from exc
    found = value.get("format") if isinstance(value, dict) else None
    if isinstance(found, int | float) and found > FORMAT:
        raise DataError(f"{where}: manifest format {found} is newer than this nanosft reads ({FORMAT}): update nanosft")
    try:
        return Manifest.model_validate(value)
    except ValidationError as exc:
        problem = exc.errors()[0]
        key = ".".join(map(str, problem["loc"])) or "manifest"
        raise DataError(f"{where}: not a manifest: {key}: {problem['msg']}") from exc


def sort_objects(objects: Iterable[ManifestObject]) -> tuple[ManifestObject, ...]:
    """The objects in the order a manifest names them."""
    return tuple(sorted(objects, key=lambda item: item.key))


def check_same_settings(found: Manifest, settings: dict[str, Any], *, where: str) -> None:
    """Refuse to go on under other settings than those the finished set was made with.

    Args:
        found: The manifest that is there.
        settings: What this run would put into its own.
        where: The manifest's URI.

    Raises:
        ConfigError: They differ; the message names the first key that does.
    """
    wanted = json_values(settings)
    for key in sorted({*found.settings, *wanted}):
        before, now = found.settings.get(key), wanted.get(key)
        if before != now:
            raise ConfigError(
                f"{where}: made with {key}={before!r}, now {key}={now!r}: "
                "choose another --out, or the settings it was made with"
            )


def json_values(values: dict[str, Any]) -> dict[str, Any]:
    """The same values as JSON gives them back."""
    parsed: dict[str, Any] = orjson.loads(orjson.dumps(to_jsonable_python(values)))
    return parsed
