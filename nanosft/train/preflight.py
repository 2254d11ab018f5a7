"""`nanosft train --preflight`: what would not work, found before any GPU time is spent."""

import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from nanosft.data import DataObject, OutputPrefix, iter_lines
from nanosft.distributed import World
from nanosft.errors import ConfigError, NanosftError
from nanosft.manifest import check_same_settings
from nanosft.memory import find_memory_bytes
from nanosft.nanochat.checkpoint import Checkpoint, load_checkpoint
from nanosft.settings.train import TrainSettings
from nanosft.store import check_writable, find_local_path, open_store
from nanosft.store.base import Store
from nanosft.train.data import count_rows_per_step, split_objects
from nanosft.train.finish import find_content
from nanosft.train.loss import CHUNK_TOKENS
from nanosft.train.optim import Group, HyperParameters, group_parameters
from nanosft.train.precision import choose_dtype
from nanosft.train.state import list_states

_ACTIVATIONS_PER_CHANNEL: Final = 34
"""Values of a block that the backward pass needs, per token and channel of the stream (arXiv 2205.05198, table 2)."""
_NUM_BEST: Final = 2
"""Best models at a time: the older one goes with the next state."""
_NUM_FINAL: Final = 2
"""Models of a finished run: the last and the best."""
_EXPANSION: Final = {"gz": 5, "zst": 5, "parquet": 5}
"""How many times as large conversations become, roughly. Tokens and their masks are no larger than their text."""
_GIB: Final = 1 << 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, what was found, and the error where it would not work."""

    name: str
    found: str
    error: NanosftError | None = None


def run_preflight(settings: TrainSettings, world: World) -> tuple[Check, ...]:
    """Check store, base, tokenizer, data, batch and memory; report each, then fail if any does.

    Args:
        settings: Settings of the run that is asked about.
        world: The ranks that ask; one process may ask for a job as large as `preflight_nodes` and
            `preflight_ranks_per_node` say.

    Raises:
        NanosftError: The first error found, told with the number of the others.
    """
    if world.size == 1:
        ranks_per_node = settings.preflight_ranks_per_node or 1
        size = (settings.preflight_nodes or 1) * ranks_per_node
        world = replace(world, size=size, local_size=ranks_per_node)
    checks: list[Check] = []

    def check(name: str, look: Callable[[], str]) -> None:
        try:
            checks.append(Check(name, look()))
        except NanosftError as exc:
            checks.append(Check(name, str(exc), exc))

    store = open_store(settings.out)
    check("store", lambda: _check_store(store, find_content(settings)))
    base: list[Checkpoint] = []
    check("base and tokenizer", lambda: _check_base(settings, base))
    check("data", lambda: _check_data(settings))
    if base:
        check("batch", lambda: _check_batch(settings, base[0], world))
        check("memory", lambda: _check_memory(settings, base[0], world))
    if base and not any(item.error for item in checks):
        check("disk", lambda: _check_disk(settings, store, base[0]))
    for item in checks:
        _log.log(logging.ERROR if item.error else logging.INFO, "%s: %s", item.name, item.found)
    errors = [item.error for item in checks if item.error is not None]
    if errors:
        others = f" ({len(errors) - 1} more problems above)" if len(errors) > 1 else ""
        raise type(errors[0])(f"{errors[0]}{others}")
    return tuple(checks)


def estimate_memory_bytes(groups: list[Group], base: Checkpoint, hyper: HyperParameters, *, world_size: int) -> int:
    """What one rank needs at most: weights, gradients, its share of the moments, activations and a chunk of logits."""
    num_matrix, num_other = _count_params(groups)
    moments = (num_matrix + 2 * num_other) / world_size
    config, width_bytes = base.model.config, base.model.compute_dtype.itemsize
    tokens = min(hyper.device_rows, hyper.total_batch_size // hyper.row_len) * hyper.row_len
    activations = tokens * config.n_embd * config.n_layer * _ACTIVATIONS_PER_CHANNEL * width_bytes
    logits = CHUNK_TOKENS * config.vocab_size * 4 * 3
    return int(4 * (2 * (num_matrix + num_other) + moments) + activations + logits)


def _check_store(store: Store, content: dict[str, Any]) -> str:
    """Written, read and deleted; and nothing there of a run with other settings."""
    check_writable(store, "preflight")
    if OutputPrefix(store, "train", content).find_finished() is not None:
        return f"{store.uri}: written, read and deleted an object; holds a finished run"
    states = list_states(store)
    if states:
        check_same_settings(states[0].manifest, content, where=store.uri_of(states[0].directory))
    resumes = f"; would resume after step {states[0].step}" if states else ""
    return f"{store.uri}: written, read and deleted an object{resumes}"


def _check_base(settings: TrainSettings, found: list[Checkpoint]) -> str:
    base = load_checkpoint(
        settings.base,
        settings.base_source,
        settings.base_tag,
        settings.base_step,
        softcap=settings.softcap,
    )
    dtype = base.model.compute_dtype = choose_dtype(settings.dtype, base.model.config, _device(settings))
    found.append(base)
    num_params = sum(param.numel() for param in base.model.parameters())
    return (
        f"{base.uri}: {base.tag} at step {base.step}, {base.generation.name}, {num_params:,} parameters, "
        f"{base.tokenizer.vocab_size} tokens as in its tokenizer; computes in {str(dtype).removeprefix('torch.')}"
    )


def _check_data(settings: TrainSettings) -> str:
    train, val = split_objects(settings.data, settings.val_data)
    size_bytes = sum(_read_whole(item) for item in (*train, *val))
    num_hashed = sum(item.sha256 is not None for item in (*train, *val))
    return (
        f"{settings.data}: {len(train)} objects to train on, {len(val)} to validate on, {size_bytes:,} bytes read; "
        f"the hashes of {num_hashed} are those of their manifest"
    )


def _check_batch(settings: TrainSettings, base: Checkpoint, world: World) -> str:
    hyper = HyperParameters.resolve(settings, base.meta, where=base.uri)
    rows = count_rows_per_step(hyper.total_batch_size, hyper.row_len, world.size)
    return f"{rows} rows of {hyper.row_len} tokens a step, {rows // world.size} on each of {world.size} ranks"


def _check_memory(settings: TrainSettings, base: Checkpoint, world: World) -> str:
    hyper = HyperParameters.resolve(settings, base.meta, where=base.uri)
    groups = group_parameters(base.model, hyper.optimizer, width=base.model.config.n_embd)
    needed = estimate_memory_bytes(groups, base, hyper, world_size=world.size)
    device = _device(settings)
    if device.type == "cuda":
        there, name = torch.cuda.get_device_properties(0).total_memory, torch.cuda.get_device_name(0)
    else:
        there = find_memory_bytes() // world.local_size
        name = "a rank's share of this machine or container"
    text = f"needs about {needed / _GIB:.1f} GiB a rank, {name} has {there / _GIB:.1f} GiB"
    if needed > there:
        raise ConfigError(f"{text}: lower --device-batch-size {hyper.device_rows}, or use more ranks")
    return text


def estimate_disk_bytes(num_params: int, num_moments: int, token_bytes: int, *, keep_states: int) -> int:
    """What a run's store holds at the most: the states that are kept and one being written, two best, two at the end.

    Args:
        num_params: The model's parameters, each of four bytes.
        num_moments: The optimizer's values, of as many.
        token_bytes: The data as tokens.
        keep_states: How many states are kept.
    """
    num_values = (keep_states + 1) * (num_params + num_moments) + (_NUM_BEST + _NUM_FINAL) * num_params
    return 4 * num_values + token_bytes


def _check_disk(settings: TrainSettings, store: Store, base: Checkpoint) -> str:
    """Free space for states, models and tokens where `--out` is local, and for tokens in the temporary directory."""
    hyper = HyperParameters.resolve(settings, base.meta, where=base.uri)
    groups = group_parameters(base.model, hyper.optimizer, width=base.model.config.n_embd)
    num_matrix, num_other = _count_params(groups)
    train, val = split_objects(settings.data, settings.val_data)
    token_bytes = sum(item.size_bytes * _EXPANSION.get(item.key.rpartition(".")[2], 1) for item in (*train, *val))
    needs = {tempfile.gettempdir(): (token_bytes, "the data as tokens, in the temporary directory")}
    if (path := find_local_path(store.uri)) is not None:
        num_bytes = estimate_disk_bytes(
            num_matrix + num_other, num_matrix + 2 * num_other, token_bytes, keep_states=settings.keep_states
        )
        num_bytes -= sum(info.size_bytes for info in store.list())  # of the run that is gone on with
        needs[str(path)] = (
            max(0, num_bytes),
            f"{settings.keep_states} states, models and tokens",
        )
    by_disk: dict[int, list[tuple[str, int, str]]] = {}
    for folder, (num_bytes, what) in needs.items():
        there = next(path for path in (Path(folder), *Path(folder).parents) if path.is_dir())
        by_disk.setdefault(there.stat().st_dev, []).append((str(there), num_bytes, what))
    texts = []
    for wanted in by_disk.values():
        folder, needed = wanted[-1][0], sum(num_bytes for _, num_bytes, _ in wanted)
        free = shutil.disk_usage(folder).free
        text = f"{folder}: needs about {needed / _GIB:.2f} GiB ({'; '.join(what for *_, what in wanted)}), "
        text += f"{free / _GIB:.2f} GiB are free"
        if needed > free:
            raise ConfigError(f"{text}: free some, lower --keep-states, or choose another --out or TMPDIR")
        texts.append(text)
    return "; ".join(texts)


def _count_params(groups: list[Group]) -> tuple[int, int]:
    """Parameters with one moment each (Muon's), and those with two (Adam's)."""
    num_matrix = sum(param.numel() for group in groups if group.betas is None for param in group.params.values())
    num_other = sum(param.numel() for group in groups if group.betas is not None for param in group.params.values())
    return num_matrix, num_other


def _device(settings: TrainSettings) -> torch.device:
    use_cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_cuda else "cpu")


def _read_whole(item: DataObject) -> int:
    return sum(len(line) for _, line in iter_lines(item))
