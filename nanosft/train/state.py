"""Resumable states: `state/step_000200-<attempt>/rank_00000.pt …`, and `manifest.json` last.

Each rank saves the parameters and moments that it owns (see `optimizer`), so all ranks share the upload, and any
number of ranks can read a state back. The cursor is the number of finished steps: the order of the data, the learning
rates and the samples are functions of it and of the seed, and no global random generator is drawn from.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from nanosft.distributed import World
from nanosft.errors import DataError, NanosftError, StoreError
from nanosft.manifest import MANIFEST_KEY, Manifest, ManifestObject, Parent, check_same_settings, parse_manifest
from nanosft.nanochat.tensors import load_torch, write_tensors
from nanosft.nanochat.verified import open_verified
from nanosft.store.base import Store
from nanosft.train.optim import MuonAdamW
from nanosft.train.progress import Progress
from nanosft.train.snapshot import Snapshot, open_copy_stream, take_snapshot

BEST_PREFIX: Final = "best/"
TOKENIZER_COUNT: Final = "tokenizer_sha256"
"""What the counts of a state's manifest call the SHA-256 of the tokenizer.pkl that it was trained with."""

_PREFIX: Final = "state/"
_NAME = re.compile(r"step_(\d+)-(\w+)")
_log = logging.getLogger(__name__)


class StateSaver:
    """Saves states in the background: training waits for a copy in memory, not for the store.

    On CUDA it does not wait for the copy either: the next update does, on the device.

    Args:
        store: The run's store.
        world: This rank among all.
        executor: One thread, which also brings order into what is written.
        optimizer: It knows which parameters and moments are this rank's.
        keep: How many of the newest states to keep.
        attempt: Unique to this start of the run; a zombie's objects never meet ours.
        manifest: What the manifests say beside objects and the counts of their step.
    """

    def __init__(
        self,
        store: Store,
        world: World,
        executor: Executor,
        optimizer: MuonAdamW,
        *,
        keep: int,
        attempt: str,
        manifest: Manifest,
    ) -> None:
        self._store = store
        self._world = world
        self._executor = executor
        self._optimizer = optimizer
        self._keep = keep
        self._attempt = attempt
        self._manifest = manifest
        self._pending: Future[None] | None = None
        self._best: tuple[str, Snapshot] | None = None  # what could not be written yet
        self._buffers: dict[str, Any] | None = None
        self._stream = open_copy_stream(world.device)

    @property
    def is_busy(self) -> bool:
        """Whether an earlier state is still on its way."""
        return self._pending is not None and not self._pending.done()

    def save(self, progress: Progress) -> None:
        """Copy the state and start writing it; waits for an earlier one first."""
        self._settle(is_last=False)
        optimizer = self._optimizer
        params = {name: param.data for group in optimizer.groups for name, param in optimizer.owned(group).items()}
        snapshot = self._take({"params": params, "optimizer": optimizer.state}, self._buffers)
        self._buffers = snapshot.tensors
        self._pending = self._executor.submit(self._write, snapshot, optimizer.num_updates, progress)

    def save_best(self, model: nn.Module, step: int) -> str:
        """Start writing the model's weights, on rank 0; their key, on every rank.

        What cannot be written is kept and tried again before the next state, which refers to it, and at the end.
        """
        key = f"{BEST_PREFIX}step_{step:06d}-{self._attempt}/model.pt"
        if self._world.is_first:
            self._executor.submit(self._try_best, key, self._take(model.state_dict()))
        return key

    def _take(self, source: Mapping[str, Any], buffers: dict[str, Any] | None = None) -> Snapshot:
        snapshot = take_snapshot(source, buffers, self._stream)
        if snapshot.copied is not None:
            self._optimizer.readers.append(snapshot.copied)
        return snapshot

    def finish(self) -> None:
        """Wait for the state and the best model on their way.

        Raises:
            StoreError: One could not be written.
        """
        self._settle(is_last=True)
        self._world.run_on_rank_zero(lambda: self._executor.submit(self._write_best).result())

    def _try_best(self, key: str, weights: Snapshot) -> None:
        """Runs in the background thread, as do all uses of what is kept."""
        self._best = key, weights
        try:
            self._write_best()
        except NanosftError as exc:
            _log.warning(
                "the best model was not saved (%s); training goes on, it is tried again with the next state", exc
            )

    def _write_best(self) -> None:
        if self._best is not None:
            key, weights = self._best
            weights.wait()
            write_tensors(self._store, key, weights.tensors)
            self._best = None

    def _settle(self, *, is_last: bool) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except NanosftError as exc:
            if is_last:
                raise
            if self._world.is_first:
                _log.warning("the last state was not saved (%s); training goes on, the next one is tried", exc)

    def _write(self, snapshot: Snapshot, num_updates: int, progress: Progress) -> None:
        """Runs in the background thread of every rank."""
        directory = f"{_PREFIX}step_{progress.step:06d}-{self._attempt}"
        outcome: ManifestObject | NanosftError
        try:
            self._write_best()  # first: a state must not refer to a model that is not there
            key = f"rank_{self._world.rank:05d}.pt"
            snapshot.wait()
            state = snapshot.tensors | {"num_updates": num_updates}
            written = write_tensors(self._store, f"{directory}/{key}", state)
            outcome = ManifestObject(key=key, size_bytes=written.size_bytes, sha256=written.sha256)
        except NanosftError as exc:
            outcome = exc
        outcomes = self._world.gather(outcome, background=True)
        errors = [found for found in outcomes if isinstance(found, NanosftError)]
        if errors:
            raise errors[0]
        if self._world.is_first:
            objects = tuple(found for found in outcomes if isinstance(found, ManifestObject))
            own = {"world_size": self._world.size, "num_threads": torch.get_num_threads()}
            counts = {**self._manifest.counts, **asdict(progress), **own}
            manifest = self._manifest.model_copy(update={"objects": objects, "counts": counts})
            self._store.write(f"{directory}/{MANIFEST_KEY}", manifest.to_bytes())  # the directory is this attempt's own
            self._check_there(directory, objects)
            self._delete_old(progress.step)

    def _check_there(self, directory: str, objects: Sequence[ManifestObject]) -> None:
        """Take a manifest back whose objects another process deleted while this one was held before it.

        Raises:
            StoreError: It did.
        """
        if all(self._store.exists(f"{directory}/{item.key}") for item in objects):
            return
        self._store.delete(f"{directory}/{MANIFEST_KEY}")
        raise StoreError(
            f"{self._store.uri_of(directory)}: another process of this run, which is further on, deleted it"
        )

    def _delete_old(self, step: int) -> None:
        """Delete states beyond the newest K, unfinished ones before them, and best models none of the K refers to.

        States of later steps than `step`, which was saved just now, do not count: the run fell back behind them, so
        they are damaged.
        """
        kept = [state for state in list_states(self._store) if state.step <= step][: self._keep]
        oldest = min((state.step for state in kept), default=0)  # none, where what was just put cannot be read
        keys = [info.key for info in self._store.list(_PREFIX)]
        for directory in {key.split("/")[1] for key in keys}:
            match = _NAME.fullmatch(directory)
            if match is None or int(match[1]) >= oldest or any(state.directory == directory for state in kept):
                continue
            own = [key for key in keys if key.startswith(f"{_PREFIX}{directory}/")]
            manifest_key = f"{_PREFIX}{directory}/{MANIFEST_KEY}"
            for key in sorted(own, key=lambda key: key != manifest_key):  # its manifest first
                self._store.delete(key)
            if manifest_key not in own:  # a process that was held may have put it meanwhile
                self._store.delete(manifest_key)
        needed = {state.manifest.counts.get("best_key") for state in kept}
        for info in list(self._store.list(BEST_PREFIX)):
            match = _NAME.search(info.key)
            if match is not None and info.key not in needed and int(match[1]) < oldest:
                self._store.delete(info.key)


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state that is there in whole, as its manifest says."""

    directory: str
    step: int
    manifest: Manifest


def list_states(store: Store) -> list[SavedState]:
    """All states with a manifest, newest first. A manifest that cannot be read is warned of and left out."""
    states = []
    for info in store.list(_PREFIX):
        directory, _, name = info.key.removeprefix(_PREFIX).rpartition("/")
        match = _NAME.fullmatch(directory)
        if name != MANIFEST_KEY or match is None:
            continue
        try:
            manifest = parse_manifest(store.read(info.key), where=store.uri_of(info.key))
        except DataError as exc:
            _log.warning("%s; falling back to the state before", exc)
            continue
        states.append(SavedState(directory, int(match[1]), manifest))
    return sorted(states, key=lambda state: (state.step, state.directory), reverse=True)


def restore(store: Store, world: World, optimizer: MuonAdamW, *, expected: Manifest) -> Progress | None:
    """Take up the newest state that is whole, on all ranks alike.

    Args:
        store: The run's store.
        world: This rank among all; another number of ranks than saved the state will do.
        optimizer: It and its parameters are overwritten.
        expected: Settings, parents and tokenizer that the state must have been made with.

    Returns:
        Where the run goes on, or None when there is no state.

    Raises:
        ConfigError: The state was made with other settings.
        DataError: It was made from other data, another base or with another tokenizer.
    """
    for state in world.run_on_rank_zero(lambda: list_states(store)):
        where = store.uri_of(f"{_PREFIX}{state.directory}")
        check_same_settings(state.manifest, expected.settings, where=where)
        _check_same_parents(state.manifest.parents, expected.parents, where)
        _check_same_tokenizer(state.manifest, expected, where)
        try:
            files = world.run_on_all_ranks(partial(_read_files, store, state, world))
        except DataError as exc:
            _log.warning("the newest state is damaged (%s); falling back to the one before", exc)
            continue
        _apply(files, optimizer)
        counts = state.manifest.counts
        if counts["num_threads"] != torch.get_num_threads():
            _log.warning(
                "the state was saved with %s CPU threads, this run has %s: equal within rounding, not bit for bit",
                counts["num_threads"],
                torch.get_num_threads(),
            )
        return Progress(**{name: counts[name] for name in Progress.__dataclass_fields__ if name in counts})
    return None


def _apply(files: Sequence[Mapping[str, Any]], optimizer: MuonAdamW) -> None:
    params = {name: param for group in optimizer.groups for name, param in group.params.items()}
    with torch.no_grad():
        for file in files:
            optimizer.num_updates = file["num_updates"]
            for name, tensor in file["params"].items():
                params[name].copy_(tensor)
            for name, moments in file["optimizer"].items():
                for key, tensor in moments.items() if name in optimizer.state else ():
                    optimizer.state[name][key].copy_(tensor)
    for work in optimizer.broadcast(params):
        work.wait()


def _read_files(store: Store, state: SavedState, world: World) -> list[dict[str, Any]]:
    """At the world size that saved, a rank's own file: owners are a function of that size. Else all files."""
    own = f"rank_{world.rank:05d}.pt" if state.manifest.counts["world_size"] == world.size else None
    return [_read_file(store, state.directory, item) for item in state.manifest.objects if own in (None, item.key)]


def _read_file(store: Store, directory: str, item: ManifestObject) -> dict[str, Any]:
    key = f"{_PREFIX}{directory}/{item.key}"
    with open_verified(store, key, item.sha256) as file:
        state: dict[str, Any] = load_torch(file, store.uri_of(key))
    return state


def _check_same_parents(found: Sequence[Parent], expected: Sequence[Parent], where: str) -> None:
    before = {item.sha256 for item in found}
    for item in expected:
        if item.sha256 not in before:
            raise DataError(f"{where}: {item.uri} has changed since: choose another --out")


def _check_same_tokenizer(found: Manifest, expected: Manifest, where: str) -> None:
    """A base that has no manifest names no tokenizer: any may lie beside its weights. Older states do not tell."""
    now = expected.counts.get(TOKENIZER_COUNT)
    if found.counts.get(TOKENIZER_COUNT, now) != now:
        raise DataError(
            f"{where}: was trained with another tokenizer than the one that lies beside the base now: "
            "put that one back, or choose another --out"
        )
