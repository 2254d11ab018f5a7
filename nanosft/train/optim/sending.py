"""Parameters on their way from the ranks that updated them to all others: small ones together, in one collective."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES: Final = 64 << 20
"""Parameters travel together up to this; a larger one travels alone, without a copy."""


@dataclass(frozen=True, slots=True)
class Sending:
    """A collective under way.

    Attributes:
        work: What is waited for.
        flat: What travels; None where the parameter itself does.
        params: What it is cut into on arrival.
    """

    work: dist.Work
    flat: Tensor | None
    params: list[Tensor]

    def wait(self) -> None:
        """Wait until it has arrived, and put it where it belongs."""
        self.work.wait()
        if self.flat is not None and self.params:
            pieces = torch.split(self.flat, [param.numel() for param in self.params])
            views = [piece.view_as(param) for piece, param in zip(pieces, self.params, strict=True)]
            torch._foreach_copy_(self.params, views)


def broadcast_parameters(params: Mapping[str, nn.Parameter], owners: Mapping[str, int], *, rank: int) -> list[Sending]:
    """Start sending each parameter from its owner to all other ranks; the order is the same on all of them."""
    works = []
    for owner, bucket in _bucket(params, owners):
        if len(bucket) == 1:
            works.append(Sending(_start(bucket[0], owner), None, []))
            continue
        if rank == owner:
            flat = torch.cat([param.flatten() for param in bucket])
        else:
            flat = bucket[0].new_empty(sum(param.numel() for param in bucket))
        works.append(Sending(_start(flat, owner), flat, [] if rank == owner else bucket))
    return works


def _start(tensor: Tensor, owner: int) -> dist.Work:
    work: dist.Work = dist.broadcast(tensor, owner, async_op=True)
    return work


def _bucket(params: Mapping[str, nn.Parameter], owners: Mapping[str, int]) -> Iterator[tuple[int, list[Tensor]]]:
    """Owner and parameters of each collective; parameters of one collective are of one dtype."""
    open_buckets: dict[tuple[int, torch.dtype], list[Tensor]] = {}
    for name, param in params.items():
        key = owners[name], param.dtype
        bucket = open_buckets.setdefault(key, [])
        if bucket and sum(item.nbytes for item in bucket) + param.nbytes > BUCKET_BYTES:
            yield owners[name], open_buckets.pop(key)
            bucket = open_buckets.setdefault(key, [])
        bucket.append(param.data)
    for (owner, _), bucket in open_buckets.items():
        yield owner, bucket
