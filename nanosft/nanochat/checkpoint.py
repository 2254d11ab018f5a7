"""Models in nanochat's layout, read from and written to the store.

Nothing that a file holds is run: model files are read with `weights_only=True`, the tokenizer by its own unpickler.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
import torch

from nanosft.errors import ConfigError, DataError
from nanosft.nanochat.generations import GENERATIONS, Generation, parse_model_config
from nanosft.nanochat.layout import (
    TOKEN_BYTES_KEY,
    TOKENIZER_KEY,
    CheckpointRef,
    Source,
    checkpoint_keys,
    find_checkpoint,
    find_tokenizer,
    token_bytes_key,
)
from nanosft.nanochat.meta_file import read_meta
from nanosft.nanochat.model import GPT
from nanosft.nanochat.state_dict import model_from_state_dict
from nanosft.nanochat.tensors import read_tensors, read_torch, write_tensors
from nanosft.nanochat.tokenizer import Tokenizer, load_tokenizer
from nanosft.settings.base import Step
from nanosft.store import join_uri, open_store
from nanosft.store.base import Store, Written

META_KEY: Final = "nanosft"
"""Where nanosft keeps its own notes in a meta file; nanochat reads over it."""

_FIRST_BFLOAT16_CAPABILITY: Final = (8, 0)


@dataclass(frozen=True)
class Checkpoint:
    """A model with its tokenizer, and where it came from.

    Attributes:
        model: The model, on the device asked for, with float32 parameters.
        tokenizer: The tokenizer of the same base directory.
        meta: The meta file as it was read.
        ref: Which files of the base directory these were.
        uri: The base directory.
    """

    model: GPT
    tokenizer: Tokenizer
    meta: dict[str, Any]
    ref: CheckpointRef
    uri: str

    @property
    def generation(self) -> Generation:
        """What the model computes."""
        return self.model.generation

    @property
    def tag(self) -> str:
        """The directory's name, for instance "d12"; of a flat folder, which has none, what nanochat would call it."""
        return self.ref.tag or f"d{self.model.config.n_layer}"

    @property
    def step(self) -> int:
        """The step in the file names."""
        return self.ref.step

    @property
    def source(self) -> Source:
        """Which stage of training made it: "base", "mid", "chat" or "rl"."""
        return self.ref.source

    @property
    def tokenizer_uri(self) -> str:
        """Where the tokenizer lies: the base directory, or the experiment in it."""
        return join_uri(self.uri, self.ref.root)

    @property
    def context_len(self) -> int:
        """The longest row the model was trained on, in tokens."""
        trained = self.meta.get("max_seq_len")
        return max(self.model.config.sequence_len, trained if isinstance(trained, int) else 0)


def load_checkpoint(
    uri: str,
    source: Source | None = None,
    tag: str | None = None,
    step: Step | None = None,
    device: str | torch.device = "cpu",
    *,
    compute_dtype: torch.dtype | None = None,
    generation: str | None = None,
    softcap: float | None = None,
) -> Checkpoint:
    """Read a model and its tokenizer, in any of the layouts that `nanosft.nanochat.layout` knows.

    Args:
        uri: nanochat's directory, one of its experiments, or a flat folder.
        source: None: chat if there is one, else rl, mid or base.
        tag: None: the deepest model.
        step: None or "best": the one with the lowest validation loss, where a run's manifest tells; "last": the newest.
        device: Where to put the parameters.
        compute_dtype: None: bfloat16 on CUDA of sm_80 and newer, else float32.
        generation: "g1" to "g5" instead of what the keys tell.
        softcap: Instead of the generation's: 20 for files written on Mar 2 to 8, 2026.

    Raises:
        DataError: A file is missing, malformed, not what the manifest says, or does not fit the others.
        ConfigError: There is no such tag or step.
    """
    if generation is not None and generation not in GENERATIONS:
        raise ConfigError(f"generation {generation!r} is none of {', '.join(GENERATIONS)}")
    ref = find_checkpoint(open_store(uri), source, tag, step)
    return read_checkpoint(uri, ref, device, compute_dtype=compute_dtype, generation=generation, softcap=softcap)


def read_checkpoint(
    uri: str,
    ref: CheckpointRef,
    device: str | torch.device = "cpu",
    *,
    compute_dtype: torch.dtype | None = None,
    generation: str | None = None,
    softcap: float | None = None,
) -> Checkpoint:
    """Read the model that was found under a URI, and its tokenizer; the options are those of `load_checkpoint`.

    Raises:
        DataError: A file is missing, malformed, not what the manifest says, or does not fit the others.
        StoreError: The model file is another one than was found.
    """
    store = open_store(uri)
    meta = read_meta(store, ref)
    config = parse_model_config(meta.get("model_config"), where=store.uri_of(ref.meta_key))
    tokenizer = load_tokenizer(join_uri(uri, ref.root))
    where = store.uri_of(ref.model_key)
    if tokenizer.vocab_size != config.vocab_size:
        raise DataError(
            f"{where}: the model has {config.vocab_size} tokens, {tokenizer.where} has {tokenizer.vocab_size}: "
            "they do not belong together"
        )
    device = torch.device(device)
    model = model_from_state_dict(
        read_tensors(
            store, ref.model_key, sha256=ref.find_sha256(ref.model_key), etag=ref.model.etag if ref.model else None
        ),
        config,
        where=where,
        generation=GENERATIONS[generation] if generation else None,
        compute_dtype=compute_dtype or choose_compute_dtype(device),
    )
    model.generation = replace(model.generation, softcap=softcap or _noted_softcap(meta) or model.generation.softcap)
    return Checkpoint(model.to(device), tokenizer, meta, ref, store.uri)


def save_checkpoint(
    uri: str,
    model: GPT,
    meta: Mapping[str, Any],
    *,
    tag: str,
    step: int,
    source: Source = "chat",
    tokenizer_from: str | None = None,
) -> list[Written]:
    """Write a model in nanochat's layout: the tokenizer's files, the model, and last its meta file.

    Args:
        uri: The base directory to write to.
        model: Its parameters are written as float32 under nanochat's names.
        meta: The base's meta, changed where SFT changes it. `model_config` is written as it stands here.
        tag: The base's tag.
        step: Number in the file names.
        source: Which of nanochat's directories.
        tokenizer_from: A base directory whose tokenizer files are copied unchanged; None: none are written.

    Returns:
        What was put, in order.

    Raises:
        DataError: `tokenizer_from` has no tokenizer.
    """
    store = open_store(uri)
    model_key, meta_key = checkpoint_keys(source, tag, step)
    written = copy_tokenizer(open_store(tokenizer_from), store) if tokenizer_from is not None else []
    state = {key: tensor.detach().to("cpu", torch.float32) for key, tensor in model.state_dict().items()}
    written.append(write_tensors(store, model_key, state))
    notes = {"generation": model.generation.name, "softcap": model.generation.softcap}
    content = {**meta, "step": step, META_KEY: {**_notes(meta), **notes}}
    written.append(store.write(meta_key, orjson.dumps(content, option=orjson.OPT_INDENT_2)))
    return written


def save_tokenizer(uri: str, tokenizer: Tokenizer) -> list[Written]:
    """Write nanochat's tokenizer.pkl and token_bytes.pt into the base directory at `uri`."""
    store = open_store(uri)
    sizes = torch.tensor(tokenizer.token_bytes(), dtype=torch.int32)
    return [store.write(TOKENIZER_KEY, tokenizer.to_pickle()), write_tensors(store, TOKEN_BYTES_KEY, sizes)]


def check_tokenizer(base: Checkpoint) -> None:
    """See that the tokenizer that lies beside a model is still the one that was read with it.

    Raises:
        DataError: It is another one.
    """
    if load_tokenizer(base.tokenizer_uri).to_pickle() != base.tokenizer.to_pickle():
        raise DataError(
            f"{base.tokenizer.where}: was replaced while the run went on: put the tokenizer back that was there, and "
            "run the same command again: it goes on from its newest state"
        )


def copy_tokenizer(source: Store, target: Store) -> list[Written]:
    """Copy the tokenizer's files byte for byte; `token_bytes.pt` only where there is one.

    Raises:
        DataError: There is no tokenizer.pkl.
    """
    key = find_tokenizer(source)
    keys = {TOKENIZER_KEY: key, TOKEN_BYTES_KEY: token_bytes_key(key)}
    return [target.write(to, source.read(key)) for to, key in keys.items() if to == TOKENIZER_KEY or source.exists(key)]


def read_optimizer_states(uri: str, ref: CheckpointRef) -> list[Any]:
    """The optimizer state dicts that nanochat left, one a rank in order of rank; empty where it left none.

    Raises:
        DataError: A file is no optimizer state of tensors and plain values.
    """
    store = open_store(uri)
    return [read_torch(store, key, sha256=ref.find_sha256(key)) for key in ref.optimizer_keys]


def choose_compute_dtype(device: torch.device) -> torch.dtype:
    """What nanochat computes in: bfloat16 on CUDA of sm_80 and newer, else float32."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FIRST_BFLOAT16_CAPABILITY:
        return torch.bfloat16
    return torch.float32


def _notes(meta: Mapping[str, Any]) -> dict[str, Any]:
    notes = meta.get(META_KEY)
    return notes if isinstance(notes, dict) else {}


def _noted_softcap(meta: Mapping[str, Any]) -> float | None:
    softcap = _notes(meta).get("softcap")
    return float(softcap) if isinstance(softcap, int | float) and softcap > 0 else None
