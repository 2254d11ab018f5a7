"""A model in a folder as transformers reads it, checked before anybody else sees it."""

import atexit
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
import torch
from safetensors.torch import save_file
from torch import Tensor

from nanosft.export import remote
from nanosft.export.convert import REMOTE_MODULE, convert_tensors, is_native, make_config
from nanosft.export.tokenizer import CHAT_TEMPLATE, make_tokenizer_config, to_tokenizer_json
from nanosft.knowledge import SHIPPED
from nanosft.lineage import Ancestor, find_evaluation
from nanosft.nanochat import Checkpoint, load_checkpoint
from nanosft.settings.export import ExportSettings
from nanosft.shipped import find_shipped

if TYPE_CHECKING:
    from nanosft.export.check import CheckResult

_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_MODULES_VARIABLE: Final = "HF_MODULES_CACHE"
_GENERATION: Final = {"do_sample": True, "temperature": 0.6, "top_k": 50, "max_new_tokens": 256}
"""How `nanosft chat` samples."""


def write_folder(settings: ExportSettings, folder: Path, *, lineage: Ancestor | None) -> "CheckResult":
    """Write the export into a folder: weights, config, tokenizer, template, code and, after the check, the card.

    Args:
        settings: Which model, and how.
        folder: Empty.
        lineage: What the model was made from, for the card.

    Raises:
        DataError: The model is missing or damaged, or what was written is not what was read.
    """
    _make_modules_folder()
    from nanosft.export.card import make_model_card  # noqa: PLC0415 - they import transformers
    from nanosft.export.check import check_export  # noqa: PLC0415

    assert settings.model is not None
    dtype = _DTYPES[settings.dtype]
    checkpoint = load_checkpoint(
        settings.model, settings.source, settings.tag, settings.step, compute_dtype=torch.float32
    )
    tensors = convert_tensors(checkpoint, dtype)
    write_files(folder, checkpoint, tensors, dtype)
    with torch.no_grad():  # what is compared has the weights that were written
        for parameter in checkpoint.model.parameters():
            parameter.copy_(parameter.to(dtype))
    text = find_shipped(SHIPPED).read_text(encoding="utf-8")
    result = check_export(folder, checkpoint, tensors, text=text)
    evaluation = find_evaluation(settings.model)
    card = make_model_card(settings, checkpoint, lineage, evaluation, result, is_native=is_native(checkpoint))
    (folder / "README.md").write_text(card, encoding="utf-8")
    return result


def write_files(folder: Path, checkpoint: Checkpoint, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Write all that transformers reads."""
    tokenizer = checkpoint.tokenizer
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", make_config(checkpoint, dtype, transformers_version=version("transformers")))
    ends = [tokenizer.assistant_end_id, tokenizer.bos_id]
    special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": ends, "pad_token_id": tokenizer.bos_id}
    _write_json(folder / "generation_config.json", {**_GENERATION, **special})
    (folder / "tokenizer.json").write_bytes(to_tokenizer_json(tokenizer))
    _write_json(folder / "tokenizer_config.json", make_tokenizer_config(context_len=checkpoint.context_len))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    if not is_native(checkpoint):
        name = f"{REMOTE_MODULE}.py"
        shutil.copyfile(Path(remote.__path__[0]) / name, folder / name)


def _make_modules_folder() -> None:
    """Let transformers keep the code that it loads in a folder of this process: its own may be read-only, or shared.

    The variable is read when transformers is imported.
    """
    if _MODULES_VARIABLE not in os.environ:
        path = tempfile.mkdtemp(prefix="nanosft-modules-")
        atexit.register(shutil.rmtree, path, ignore_errors=True)
        os.environ[_MODULES_VARIABLE] = path


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
