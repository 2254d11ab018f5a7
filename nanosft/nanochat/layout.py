"""Where bases and chat models keep their files, and which checkpoint is meant. Torch-free.

    base_checkpoints/<tag>/model_<step>.pt, meta_<step>.json, optim_<step>_rank<n>.pt     nanochat's directory;
    chatsft_checkpoints/<tag>/…   tokenizer/tokenizer.pkl, token_bytes.pt                 what nanosft writes, too
    experiments/<name>/<tag>/base/model_<step>.pt, …   experiments/<name>/tokenizer/…     nanochat's coming layout
    <tag>/base/model_<step>.pt, …   tokenizer/…                                           one of its experiments
    model_<step>.pt, meta_<step>.json, tokenizer.pkl, token_bytes.pt                      a flat folder, as on the Hub

The facts of the coming layout were read from nanochat's branch experiment_refactor, at e4286f8.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from nanosft.data import DataObject, Origin, read_manifest
from nanosft.errors import ConfigError, DataError
from nanosft.manifest import Manifest, ManifestObject
from nanosft.settings.base import Step
from nanosft.store.base import Directory, ObjectInfo, Store

Source = Literal["base", "mid", "chat", "rl"]

DIRECTORIES: Final[Mapping[Source, str]] = {
    "base": "base_checkpoints",
    "mid": "mid_checkpoints",
    "chat": "chatsft_checkpoints",
    "rl": "chatrl_checkpoints",
}
TOKENIZER_KEY: Final = "tokenizer/tokenizer.pkl"
TOKEN_BYTES_KEY: Final = "tokenizer/token_bytes.pt"  # noqa: S105 - no password

_EXPERIMENTS: Final = "experiments"
_TOKENIZER_DIRECTORY: Final = "tokenizer"
_STAGES: Final[Mapping[Source, str]] = {"base": "base", "mid": "mid", "chat": "sft", "rl": "rl"}
_BY_DEFAULT: Final[tuple[Source, ...]] = ("chat", "rl", "mid", "base")
_FILE: Final = re.compile(r"(?P<kind>model|meta|optim)_(?P<step>\d+)(?:_rank(?P<rank>\d+))?\.(?:pt|json)")
_DEPTH_TAG: Final = re.compile(r"d(\d+)")


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """One checkpoint that is there.

    Attributes:
        source: Which stage of training made it; in a flat folder, which cannot tell, the one that was asked for.
        tag: The directory's name, for instance "d12"; empty in a flat folder.
        step: The step in its file names.
        optimizer_keys: The optimizer's files in order of rank; empty where there are none.
        root: Where its tokenizer lies: empty, or the experiment's directory with a slash behind it.
        recorded: What the manifest names, by key; empty where there is none.
        model: What the store told of the model file when it was chosen; None where a manifest names it.
    """

    source: Source
    tag: str
    step: int
    model_key: str
    meta_key: str
    optimizer_keys: tuple[str, ...] = ()
    root: str = ""
    recorded: Mapping[str, ManifestObject] = field(default_factory=dict)
    model: ObjectInfo | None = None

    def find_sha256(self, key: str) -> str | None:
        """The SHA-256 that the manifest has for a key; None where it names none."""
        return self.recorded[key].sha256 if key in self.recorded else None


def checkpoint_keys(source: Source, tag: str, step: int) -> tuple[str, str]:
    """Keys of the model file and of the meta file in nanochat's directory, where nanosft writes them."""
    prefix = f"{DIRECTORIES[source]}/{tag}"
    return f"{prefix}/model_{step:06d}.pt", f"{prefix}/meta_{step:06d}.json"


def find_checkpoint(
    store: Store, source: Source | None = None, tag: str | None = None, step: Step | None = None
) -> CheckpointRef:
    """Choose a checkpoint under a URI, whichever layout it has.

    Args:
        store: The base directory, experiment or flat folder.
        source: None: chat if there is one, else rl, mid or base.
        tag: None: the deepest (d32 before d4), then the last by name.
        step: None or "best": the one with the lowest validation loss where the run's manifest tells, else the newest;
            "last": the newest.

    Raises:
        DataError: There is none; the message tells what was expected and what is there.
        ConfigError: There are some, but not of this tag or step; or several experiments have some.
    """
    if source is not None and source not in DIRECTORIES:
        raise ConfigError(f"source {source!r} is none of {', '.join(DIRECTORIES)}")
    top = store.list_directory()
    for candidate in (source,) if source else _BY_DEFAULT:
        places = [place for place in _look(store, top, candidate) if place.files]
        if len(places) > 1:
            uris = [store.uri_of(place.root.rstrip("/")) for place in places]
            raise ConfigError(
                f"{store.uri}: {len(places)} experiments have a {candidate} model: name one, {_some(uris)}"
            )
        if places:
            return _choose(store, candidate, places[0], tag, step)
    raise DataError(_describe_absence(store, source, top))


def find_tokenizer(store: Store) -> str:
    """The key of the tokenizer.pkl of a base directory, experiment or flat folder, or of a directory's one experiment.

    Raises:
        DataError: There is none; the message tells where it was looked for.
        ConfigError: Several experiments have one.
    """
    looked = [TOKENIZER_KEY, "tokenizer.pkl"]
    if key := next(filter(store.exists, looked), None):
        return key
    names = store.list_directory(_EXPERIMENTS).names
    found = [key for name in names if store.exists(key := f"{_EXPERIMENTS}/{name}/{TOKENIZER_KEY}")]
    looked.append(f"{_EXPERIMENTS}/<name>/{TOKENIZER_KEY}")
    if not found:
        raise DataError(
            f"{store.uri}: no tokenizer: looked for {', '.join(looked)}: "
            "copy nanochat's tokenizer/ directory beside its checkpoints"
        )
    if len(found) > 1:
        uris = [store.uri_of(key.removesuffix(f"/{TOKENIZER_KEY}")) for key in found]
        raise ConfigError(f"{store.uri}: {len(found)} experiments have a tokenizer: name one, {_some(uris)}")
    return found[0]


def token_bytes_key(tokenizer_key: str) -> str:
    """The key of the table of lengths that nanochat keeps beside a tokenizer."""
    return f"{tokenizer_key.removesuffix('tokenizer.pkl')}token_bytes.pt"


def best_and_last(manifest: Manifest) -> tuple[int, int] | None:
    """Steps of the checkpoint with the lowest validation loss and of the newest; None where no run of train says them.

    The best is the last where no validation loss was measured, or where the base's own was the lowest.
    """
    best, last = (manifest.counts.get(name) for name in ("best_step", "step"))
    if manifest.kind != "model" or not isinstance(best, int) or not isinstance(last, int):
        return None
    is_kept = any(item.key.endswith(f"/model_{best:06d}.pt") for item in manifest.objects)
    return (best if is_kept else last), last


_Files = dict[str, dict[int, dict[tuple[str, int], str]]]


@dataclass(frozen=True, slots=True)
class _Place:
    """Checkpoints of one source under one root.

    Attributes:
        folder: What their keys begin with, for instance "base_checkpoints/<tag>"; empty in a flat folder.
        root: See `CheckpointRef`.
        files: Keys by tag, step, and (kind, rank).
    """

    folder: str
    root: str
    files: _Files


def _look(store: Store, top: Directory, source: Source) -> Iterator[_Place]:
    """The places under a URI where checkpoints of a source may lie; the first layout that has some decides."""
    if any(_is_model(info.key) for info in top.objects):
        yield _Place("", "", _collect((info.key, "", info.key) for info in top.objects))
        return
    directory = DIRECTORIES[source]
    if directory in top.names:
        keys = (info.key for info in store.list(f"{directory}/"))
        place = _Place(f"{directory}/<tag>", "", _collect(_split(key, f"{directory}/") for key in keys))
        if place.files:
            yield place
            return
    elif _TOKENIZER_DIRECTORY in top.names and not set(DIRECTORIES.values()) & set(top.names):
        yield _look_into_experiment(store, "", source)
    if _EXPERIMENTS in top.names:
        for name in store.list_directory(_EXPERIMENTS).names:
            yield _look_into_experiment(store, f"{_EXPERIMENTS}/{name}/", source)


def _look_into_experiment(store: Store, root: str, source: Source) -> _Place:
    tags = store.list_directory(root.rstrip("/")).names
    stage = _STAGES[source]
    keys = [(tag, info.key) for tag in tags for info in store.list(f"{root}{tag}/{stage}/")]
    files = _collect((key, tag, key.removeprefix(f"{root}{tag}/{stage}/")) for tag, key in keys)
    return _Place(f"{root}<tag>/{stage}", root, files)


def _split(key: str, prefix: str) -> tuple[str, str, str]:
    """A key, with the tag and the file name in it."""
    tag, _, name = key.removeprefix(prefix).partition("/")
    return key, tag, name


def _collect(entries: Iterable[tuple[str, str, str]]) -> _Files:
    """Keys by tag, step, and (kind, rank), of entries of key, tag and file name."""
    found: _Files = {}
    for key, tag, name in entries:
        match = _FILE.fullmatch(name)
        if match is not None:
            files = found.setdefault(tag, {}).setdefault(int(match["step"]), {})
            files[match["kind"], int(match["rank"] or 0)] = key
    return found


def _is_model(name: str) -> bool:
    match = _FILE.fullmatch(name)
    return match is not None and match["kind"] == "model"


def _choose(store: Store, source: Source, place: _Place, tag: str | None, step: Step | None) -> CheckpointRef:
    found = place.files
    if tag is None or not place.folder:  # a flat folder has no tags: whatever is asked for is what lies there
        tag = max(found, key=_tag_rank)
    elif tag not in found:
        there = _some(sorted(found, key=_tag_rank))
        raise ConfigError(f"{store.uri}/{place.folder}: no tag {tag!r}; there are {there}")
    where = f"{store.uri}/{place.folder.replace('<tag>', tag)}".rstrip("/")
    steps = {number: files for number, files in found[tag].items() if ("model", 0) in files}
    if not steps:
        raise DataError(f"{where}: no model_<step>.pt; there are {_some(_names(found[tag]))}")
    manifest = read_manifest(store)
    number = step if isinstance(step, int) else max(steps)
    if not isinstance(step, int) and step != "last" and manifest is not None and source == "chat":
        best, _ = best_and_last(manifest) or (number, number)
        number = best if best in steps else number
    if number not in steps:
        raise ConfigError(f"{where}: no step {number}; there are {_some([str(other) for other in sorted(steps)])}")
    files = steps[number]
    if ("meta", 0) not in files:
        others = [other for other in steps if ("meta", 0) in steps[other]]
        advice = f"name a whole one, step {max(others)}" if others else "copy it whole"
        raise DataError(f"{store.uri_of(files['model', 0])}: no meta_{number:06d}.json beside it: {advice}")
    optimizer = sorted((rank, key) for (kind, rank), key in files.items() if kind == "optim")
    return CheckpointRef(
        source,
        tag,
        number,
        files["model", 0],
        files["meta", 0],
        tuple(key for _, key in optimizer),
        root=place.root,
        recorded={item.key: item for item in manifest.objects} if manifest is not None else {},
        model=store.stat(files["model", 0]) if manifest is None else None,
    )


def _tag_rank(tag: str) -> tuple[int, str]:
    match = _DEPTH_TAG.fullmatch(tag)
    return (int(match[1]) if match else -1, tag)


def _names(steps: Mapping[int, Mapping[tuple[str, int], str]]) -> list[str]:
    return [key.rpartition("/")[2] for files in steps.values() for key in files.values()]


def _describe_absence(store: Store, source: Source | None, top: Directory) -> str:
    sources = (source,) if source else get_args(Source)
    expected = [f"{DIRECTORIES[each]}/<tag>/model_<step>.pt" for each in sources]
    expected += [f"experiments/<name>/<tag>/{'|'.join(_STAGES[each] for each in sources)}/model_<step>.pt"]
    entries = [f"{name}/" for name in top.names] + [info.key for info in top.objects]
    there = f"there are {_some(entries)}" if entries else "nothing is there"
    return (
        f"{store.uri}: no nanochat checkpoint: expected {', '.join(expected)}, or model_<step>.pt and meta_<step>.json "
        f"right here; {there}"
    )


def _some(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def find_model_origin(store: Store, ref: CheckpointRef) -> Origin:
    """What a child of a model names as its parent: the manifest where there is one, else the model file itself."""
    manifest = read_manifest(store)
    if manifest is not None:
        return Origin.known(store.uri, manifest.sha256)
    if ref.model is None:
        raise DataError(f"{store.uri_of(ref.model_key)}: the manifest beside it is gone: run the same command again")
    return Origin.of_objects(store.uri_of(ref.model_key), [DataObject.bare(store, ref.model)])
