"""Files of `torch.save`, written as a stream and read so that nothing they hold is run, hidden or out of bounds."""

import io
import re
import zipfile
from collections.abc import Mapping
from typing import IO, Any, Final, cast

import torch
from torch import Tensor

from nanosft.errors import DataError, NanosftError
from nanosft.foreign import quote
from nanosft.nanochat.generations import name_some
from nanosft.nanochat.verified import open_verified
from nanosft.store.base import Store, Writer, Written

_UNSAFE: Final = re.compile(r"(?:GLOBAL|global|class) ([\w.]{1,80})")


def read_tensors(store: Store, key: str, *, sha256: str | None = None, etag: str | None = None) -> dict[str, Tensor]:
    """A state dict on the CPU: dense tensors of finite numbers by name.

    Args:
        store: Where it lies.
        key: Its key.
        sha256: What its bytes must hash to, where a manifest says.
        etag: What a listing told of it, where none does.

    Raises:
        DataError: The file is damaged, or no table of such tensors.
    """
    where = store.uri_of(key)
    state = read_torch(store, key, sha256=sha256, etag=etag)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise DataError(f"{where}: not a state dict: expected a table of tensors by name")
    check_tensors(state, where)
    return dict(state)


def read_torch(store: Store, key: str, *, sha256: str | None = None, etag: str | None = None) -> Any:
    """What `torch.save` wrote under a key, on the CPU; raises as `read_tensors` does."""
    with open_verified(store, key, sha256, etag=etag) as file:
        return load_torch(file, store.uri_of(key))


def load_torch(file: IO[bytes], where: str) -> Any:
    """What `torch.save` wrote, on the CPU; nothing that the file asks for is run.

    Raises:
        DataError: It is damaged, holds more than tensors and plain values, or unpacks to more than its own size.
    """
    try:
        _check_archive(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except (NanosftError, MemoryError):
        raise
    except Exception as exc:  # a damaged file can raise nearly anything
        raise DataError(f"{where}: not a file of tensors that torch reads safely: {_explain(exc)}") from exc


def check_tensors(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse what cannot be a parameter.

    Raises:
        DataError: Tensors are sparse, nested, quantized or without values, larger than what the file holds of them, or
            have NaN or infinite values; the message names them.
    """
    for what, is_so in (("not dense", _is_unusual), ("with values that are not finite", _is_not_finite)):
        names = [name for name, tensor in tensors.items() if is_so(tensor)]
        if names:
            raise DataError(f"{where}: {len(names)} tensors {what}: {name_some(names)}")


def write_tensors(store: Store, key: str, value: object) -> Written:
    """`torch.save` as a stream, never whole in memory."""
    with store.open_write(key) as writer:
        torch.save(value, cast("IO[bytes]", _Sink(writer)))  # it writes and flushes: no more is asked of it
    return writer.written


class _Sink:
    """What `torch.save` needs of a file."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, data: bytes) -> int:
        return self._writer.write(data)

    def flush(self) -> None:
        """Nothing is held back here."""


class _NotSavedByTorchError(Exception):
    """The archive is of another form than `torch.save` gives it."""


def _check_archive(file: IO[bytes]) -> None:
    """Refuse an archive that unpacks to more than its own size; `torch.save` makes none."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        is_plain = all(record.compress_type == zipfile.ZIP_STORED for record in records)
        damaged = archive.testzip() if is_plain else None
    if damaged is not None:
        raise _NotSavedByTorchError(f"the check sum of its record {quote(damaged)} is not that of its bytes")
    if not is_plain:
        raise _NotSavedByTorchError("its archive is compressed, as torch.save never makes it")
    if sum(record.file_size for record in records) > file.seek(0, io.SEEK_END):
        raise _NotSavedByTorchError("its archive claims more bytes than it has")
    file.seek(0)


def _explain(exc: Exception) -> str:
    """One line; torch's own advice is to read the file unsafely, which is never repeated."""
    text = str(exc).strip()
    if unsafe := _UNSAFE.search(text):
        return f"it asks for {unsafe[1]}, and nothing of it was run"
    line = text.split("\n")[0][:200]
    return "it holds more than tensors and plain values" if "eights only" in line or "weights_only" in line else line


def _is_unusual(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta or tensor.is_quantized:
        return True
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def _is_not_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return False
    low, high = torch.aminmax(tensor.float() if tensor.element_size() == 1 else tensor)
    return not bool(torch.isfinite(low) & torch.isfinite(high))
