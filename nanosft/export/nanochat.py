"""A model in nanochat's own layouts: its base directory, or one folder as its published weights are; then read back."""

from collections.abc import Mapping

import orjson
import torch
from torch import Tensor

from nanosft.errors import DataError
from nanosft.manifest import ManifestObject
from nanosft.nanochat import Tokenizer, load_checkpoint
from nanosft.nanochat.layout import TOKEN_BYTES_KEY, TOKENIZER_KEY, checkpoint_keys
from nanosft.nanochat.tensors import read_tensors, write_tensors
from nanosft.nanochat.tokenizer import read_tokenizer
from nanosft.settings.export import ExportSettings
from nanosft.store import Store


def write(settings: ExportSettings, store: Store) -> tuple[list[ManifestObject], dict[str, int]]:
    """Put tokenizer, meta and model, and read the model back: the objects, and how many tensors are equal.

    Raises:
        DataError: The model is missing or damaged, or what was written is not what was read.
    """
    assert settings.model is not None
    checkpoint = load_checkpoint(settings.model, settings.source, settings.tag, settings.step)
    keys = [TOKENIZER_KEY, TOKEN_BYTES_KEY, *checkpoint_keys(checkpoint.source, checkpoint.tag, checkpoint.step)]
    if settings.layout == "flat":
        keys = [key.rpartition("/")[2] for key in keys]
    pickle_key, bytes_key, model_key, meta_key = keys
    state = {key: tensor.detach().cpu() for key, tensor in checkpoint.model.state_dict().items()}
    written = [
        store.write(pickle_key, read_tokenizer(checkpoint.tokenizer_uri)[0]),
        write_tensors(store, bytes_key, _count_bytes(checkpoint.tokenizer)),
        write_tensors(store, model_key, state),
        store.write(meta_key, orjson.dumps(checkpoint.meta, option=orjson.OPT_INDENT_2)),
    ]
    _compare(state, read_tensors(store, model_key), where=store.uri_of(model_key))
    objects = [ManifestObject(key=item.key, size_bytes=item.size_bytes, sha256=item.sha256) for item in written]
    return objects, {"num_tensors": len(state)}


def _count_bytes(tokenizer: Tokenizer) -> Tensor:
    return torch.tensor(tokenizer.token_bytes(), dtype=torch.int32)


def _compare(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], *, where: str) -> None:
    for key, tensor in wanted.items():
        if key not in found or not torch.equal(found[key], tensor):
            raise DataError(f"{where}: {key} is not what was read; nothing was finished")
