"""Copies of parameters and moments in CPU memory, to be written while training goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Tensors as they were when it was taken.

    Attributes:
        tensors: The nested tables of the source, in CPU memory.
        copied: On CUDA: comes to pass when all of them are there. Until then the source must not change.
    """

    tensors: dict[str, Any]
    copied: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Return when the tensors can be read."""
        if self.copied is not None:
            self.copied.synchronize()


def open_copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A stream for copies beside what the device computes; None where there are no streams."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def take_snapshot(
    source: Mapping[str, Any], buffers: dict[str, Any] | None = None, stream: torch.cuda.Stream | None = None
) -> Snapshot:
    """Copy nested tables of tensors.

    Args:
        source: Tables of tables of tensors.
        buffers: An earlier snapshot's tensors, to be written over; None: new ones are made.
        stream: Where tensors on CUDA are copied, after what has been asked of the device so far and beside what comes
            next. The host waits for none of it.
    """
    tensors: dict[str, Any] = {} if buffers is None else buffers
    if stream is None:
        _copy_into(tensors, source)
        return Snapshot(tensors)
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        _copy_into(tensors, source)
        return Snapshot(tensors, stream.record_event())


def _copy_into(tensors: dict[str, Any], source: Mapping[str, Any]) -> None:
    for name, value in source.items():
        if not isinstance(value, Tensor):
            _copy_into(tensors.setdefault(name, {}), value)
            continue
        if name not in tensors:
            tensors[name] = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.device.type == "cuda")
        tensors[name].copy_(value.detach(), non_blocking=value.device.type == "cuda")
