"""Where nanochat keeps its files under a base directory, and which checkpoint is meant. Torch-free.

<base>/tokenizer/tokenizer.pkl, token_bytes.pt
<base>/base_checkpoints/<tag>/model_<step>.pt, meta_<step>.json, optim_<step>_rank<n>.pt
<base>/chatsft_checkpoints/<tag>/…
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nanosft.data import hash_object, read_manifest
from nanosft.errors import ConfigError, DataError
from nanosft.manifest import Parent
from nanosft.store.base import Store

Source = Literal["base", "chat"]

DIRECTORIES: Final[Mapping[Source, str]] = {"base": "base_checkpoints", "chat": "chatsft_checkpoints"}
TOKENIZER_KEY: Final = "tokenizer/tokenizer.pkl"
TOKEN_BYTES_KEY: Final = "tokenizer/token_bytes.pt"  # noqa: S105 - no password

_FILE = re.compile(r"(?P<tag>[^/]+)/(?P<kind>model|meta|optim)_(?P<step>\d+)(?:_rank(?P<rank>\d+))?\.(?:pt|json)")
_DEPTH_TAG = re.compile(r"d(\d+)")


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """One checkpoint that is there.

    Attributes:
        source: "base" or "chat".
        tag: The directory's name, for instance "d12".
        step: The step in its file names.
        optimizer_keys: The optimizer's files in order of rank; empty where there are none.
    """

    source: Source
    tag: str
    step: int
    model_key: str
    meta_key: str
    optimizer_keys: tuple[str, ...] = ()


def checkpoint_keys(source: Source, tag: str, step: int) -> tuple[str, str]:
    """Keys of the model file and of the meta file, relative to the base directory."""
    prefix = f"{DIRECTORIES[source]}/{tag}"
    return f"{prefix}/model_{step:06d}.pt", f"{prefix}/meta_{step:06d}.json"


def find_checkpoint(
    store: Store, source: Source | None = None, tag: str | None = None, step: int | None = None
) -> CheckpointRef:
    """Choose a checkpoint under a base directory, by one listing (two where there is no chat model).

    Args:
        store: The base directory.
        source: None: chat if there is one, else base.
        tag: None: the deepest (d32 before d4), then the last by name.
        step: None: the newest.

    Raises:
        DataError: There is none; the message tells what was expected and what is there.
        ConfigError: There are some, but not of this tag or step.
    """
    if source is not None and source not in DIRECTORIES:
        raise ConfigError(f"source {source!r} is none of {', '.join(DIRECTORIES)}")
    for candidate in (source,) if source else ("chat", "base"):
        found = _list_files(store, candidate)
        if found:
            return _choose(store, candidate, found, tag, step)
    raise DataError(_describe_absence(store, source))


_Files = dict[str, dict[int, dict[tuple[str, int], str]]]


def _list_files(store: Store, source: Source) -> _Files:
    """Keys by tag, step, and (kind, rank)."""
    directory = DIRECTORIES[source]
    found: _Files = {}
    for info in store.list(f"{directory}/"):
        match = _FILE.fullmatch(info.key.removeprefix(f"{directory}/"))
        if match is not None:
            files = found.setdefault(match["tag"], {}).setdefault(int(match["step"]), {})
            files[match["kind"], int(match["rank"] or 0)] = info.key
    return found


def _choose(store: Store, source: Source, found: _Files, tag: str | None, step: int | None) -> CheckpointRef:
    where = store.uri_of(DIRECTORIES[source])
    if tag is None:
        tag = max(found, key=_tag_rank)
    elif tag not in found:
        raise ConfigError(f"{where}: no tag {tag!r}; there are {_some(sorted(found, key=_tag_rank))}")
    steps = {number: files for number, files in found[tag].items() if ("model", 0) in files}
    if not steps:
        raise DataError(f"{where}/{tag}: no model_<step>.pt; there are {_some(_names(found[tag]))}")
    if step is None:
        step = max(steps)
    elif step not in steps:
        raise ConfigError(
            f"{where}/{tag}: no step {step}; there are {_some([str(number) for number in sorted(steps)])}"
        )
    files = steps[step]
    if ("meta", 0) not in files:
        others = [number for number in steps if ("meta", 0) in steps[number]]
        advice = f"name a whole one, step {max(others)}" if others else "copy it whole"
        raise DataError(f"{store.uri_of(files['model', 0])}: no meta_{step:06d}.json beside it: {advice}")
    optimizer = sorted((rank, key) for (kind, rank), key in files.items() if kind == "optim")
    return CheckpointRef(source, tag, step, files["model", 0], files["meta", 0], tuple(key for _, key in optimizer))


def _tag_rank(tag: str) -> tuple[int, str]:
    match = _DEPTH_TAG.fullmatch(tag)
    return (int(match[1]) if match else -1, tag)


def _names(steps: Mapping[int, Mapping[tuple[str, int], str]]) -> list[str]:
    return [key.rpartition("/")[2] for files in steps.values() for key in files.values()]


def _describe_absence(store: Store, source: Source | None) -> str:
    directories = [DIRECTORIES[source]] if source else list(DIRECTORIES.values())
    expected = " or ".join(f"{directory}/<tag>/model_<step>.pt" for directory in directories)
    top = store.list_directory()
    entries = [f"{name}/" for name in top.names] + [info.key for info in top.objects]
    there = f"there are {_some(entries)}" if entries else "nothing is there"
    return f"{store.uri}: no nanochat checkpoint: expected {expected}; {there}"


def _some(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def find_model_parent(store: Store, ref: CheckpointRef) -> Parent:
    """What a child of a model names as its parent: the manifest where there is one, else the model file itself."""
    manifest = read_manifest(store)
    if manifest is not None:
        return Parent(uri=store.uri, sha256=manifest.sha256)
    return Parent(uri=store.uri_of(ref.model_key), sha256=hash_object(store, ref.model_key))
