"""The ranks of a run: who we are, the collectives we use, and how a run ends on all of them together."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.distributed_c10d import Store as Meeting
from torch.distributed.rendezvous import rendezvous

from nanosft.errors import EXIT_RETRY, ConfigError, Interrupted, NanosftError, Terminated, TrainError

T = TypeVar("T")

_LEAVE_TIMEOUT_S: Final = 60.0
"""How long rank 0, whose process may host the others' store, waits for them to leave first."""
_ERROR_LEAVE_TIMEOUT_S: Final = 3.0
"""The same when something failed: they may never come."""
_LET_GO_S: Final = 0.1
"""How long gloo's threads get to let go of the last tensors, for which they need the interpreter's lock."""
_stores: Final[dict[tuple[str, ...], Meeting]] = {}
_num_meetings: Final = Counter[tuple[str, ...]]()


class LostRankError(TrainError):
    """Another rank is gone or the network failed: the same command, started again, goes on from the newest state."""

    exit_code: ClassVar[int] = EXIT_RETRY


@dataclass(frozen=True, slots=True)
class World:
    """This rank among all.

    Attributes:
        rank: 0 to size - 1.
        size: Number of ranks, over all nodes.
        local_rank: Rank on this node, which is also its GPU.
        local_size: Ranks on this node.
        device: Where this rank computes.
        background: A group for the thread that saves, so that its collectives never meet the main thread's.
        signals: Numbers of the signals that this rank has caught so far.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    background: Any = None
    signals: Sequence[int] = ()

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which talks and writes what is written once."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` (any shape, float64 on CPU) over all ranks, on every rank."""
        if self.size > 1:
            with lost_ranks():
                dist.all_reduce(values)
        return values

    def broadcast(self, value: T, *, source: int = 0) -> T:
        """Rank `source`'s value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        with lost_ranks():
            dist.broadcast_object_list(box, src=source)
        return box[0]

    def gather(self, value: T, *, background: bool = False) -> list[T]:
        """Every rank's value in order of rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with lost_ranks():
            dist.all_gather_object(values, value, group=self.background if background else None)
        return values

    def run_on_all_ranks(self, work: Callable[[], T]) -> T:
        """Run `work` on every rank; where it fails on one, all raise.

        Without this a rank that cannot read its files leaves the others waiting for it.

        Raises:
            NanosftError: The first failing rank's error.
        """
        result, error = None, None
        try:
            result = work()
        except (NanosftError, Terminated) as exc:
            error = exc
        for found in self.gather(error):
            if found is not None:
                raise found
        return result  # type: ignore[return-value]  # no error, so there is a result

    def stop_if_told(self) -> None:
        """End this rank where it has caught a signal; inside `run_on_all_ranks`, which ends the others with it.

        Raises:
            Interrupted: It has.
        """
        if self.signals:
            raise Interrupted(self.signals[0])

    @contextmanager
    def enter_on_rank_zero(self, make: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
        """A context that rank 0 alone is in; what it gives, or its error on entering, on every rank."""
        with ExitStack() as stack:
            yield self.run_on_rank_zero(lambda: stack.enter_context(make()))

    def run_on_rank_zero(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 alone and give every rank its result, or its error.

        Raises:
            NanosftError: What `work` raised on rank 0.
        """
        result: Any = None
        error: NanosftError | Terminated | None = None
        if self.is_first:
            try:
                result = work()
            except (NanosftError, Terminated) as exc:
                error = exc
        result, error = self.broadcast((result, error))
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]


ALONE: Final = World()
"""One rank, on the CPU."""


@contextmanager
def open_world(
    device: str,
    *,
    timeout_s: float,
    num_threads: int | None = None,
    signals: Sequence[int] = (),
) -> Iterator[World]:
    """Join the other ranks, as torchrun's variables tell, and leave them in order: rank 0 last.

    An error that several ranks raise is told by the first of them; the others exit with its code and say nothing.

    Args:
        device: "auto", "cpu" or "cuda"; for a single rank any that torch has.
        timeout_s: After which a collective that waits for another rank fails.
        num_threads: CPU threads of this rank; None: OMP_NUM_THREADS, or the cores shared evenly.
        signals: Where the numbers of caught signals are noted (`signals.collecting`); none where they raise.

    Raises:
        ConfigError: CUDA is asked for and there is none, or fewer GPUs than ranks; or WORLD_SIZE came without the
            other variables.
        LostRankError: The ranks do not find each other.
    """
    rank, size = _env_int("RANK", 0), _env_int("WORLD_SIZE", 1)
    local_rank, local_size = _env_int("LOCAL_RANK", 0), _env_int("LOCAL_WORLD_SIZE", size)
    chosen = _choose_device(device, local_rank, local_size)
    _set_threads(num_threads, local_size)
    if size == 1:
        yield World(device=chosen, signals=signals)
        return
    timeout = timedelta(seconds=timeout_s)
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise ConfigError(
            f"WORLD_SIZE is {size} but {' and '.join(missing)} not set: start ranks with nanosft launch or torchrun, "
            "or unset WORLD_SIZE"
        )
    with lost_ranks():
        store = _meet(timeout)
        is_cuda = chosen.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if is_cuda else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timeout,
            device_id=chosen if is_cuda else None,
        )
        background = dist.new_group(backend="gloo", timeout=timeout)
    try:
        yield World(rank, size, local_rank, local_size, chosen, background, signals)
    except (NanosftError, Terminated) as exc:
        num_told = _count(store, "nanosft/told")
        _leave(store, rank, size, timeout_s=_ERROR_LEAVE_TIMEOUT_S)
        if num_told > 1:
            raise SystemExit(128 + exc.signum if isinstance(exc, (Interrupted, Terminated)) else exc.exit_code) from exc
        raise
    _leave(store, rank, size, timeout_s=_LEAVE_TIMEOUT_S)
    dist.destroy_process_group()


def _meet(timeout: timedelta) -> Meeting:
    """The ranks' store, with keys of this meeting alone.

    A process has one store for all its meetings: rank 0 may host it, and another rank that came to the next meeting
    first was sent to the store of the one before. The agent's outlives a restart in place, and so its number is a key.
    """
    place = tuple(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"))
    if place not in _stores:
        _stores[place] = next(rendezvous("env://", timeout=timeout))[0]
    _num_meetings[place] += 1
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"nanosft/{restart}/{_num_meetings[place]}", _stores[place])
    store.set_timeout(timeout)
    return store


@contextmanager
def lost_ranks() -> Iterator[None]:
    """Raise a collective's failure as `LostRankError`; any other error goes through as it is."""
    try:
        yield
    except RuntimeError as exc:
        if not isinstance(exc, dist.DistError) and "gloo" not in str(exc).lower():
            raise
        reason = str(exc).strip().splitlines()[0][:200]
        raise LostRankError(
            f"lost another rank ({reason}): start the same command again, train resumes by itself"
        ) from exc


def _choose_device(name: str, local_rank: int, local_size: int) -> torch.device:
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name == "mps" and local_size > 1:
        raise ConfigError("--device mps: one rank has Apple's GPU: start one")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps: this machine has no GPU of Apple's that torch can use; use --device cpu")
    if local_size == 1 and name not in {"auto", "cuda"}:
        return torch.device(name)
    if not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has no GPU that torch can use; use --device cpu")
    if torch.cuda.device_count() < local_size:
        raise ConfigError(
            f"{local_size} ranks on this node but {torch.cuda.device_count()} GPUs: lower --nproc-per-node"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _set_threads(num_threads: int | None, local_size: int) -> None:
    if num_threads is None and "OMP_NUM_THREADS" not in os.environ:
        num_threads = max(1, len(os.sched_getaffinity(0)) // local_size)
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def _leave(store: Meeting, rank: int, size: int, *, timeout_s: float) -> None:
    """Rank 0's process may hold the store that the others still talk to: it waits until they have gone.

    Every rank sleeps a moment as well: gloo's destructor waits for its threads with the interpreter's lock held, and
    hangs for ever when one of them still wants it (seen in one of six runs of three ranks).
    """
    time.sleep(_LET_GO_S)
    deadline_s = time.monotonic() + timeout_s
    num_left = _count(store, "nanosft/left") if rank else 0
    while rank == 0 and num_left < size - 1 and time.monotonic() < deadline_s:
        num_left = _count(store, "nanosft/left", 0)
        time.sleep(0.02)


def _count(store: Meeting, key: str, num: int = 1) -> int:
    """Add to a counter that all ranks see; 0 when the store is gone with the rank that held it."""
    try:
        return int(store.add(key, num))
    except RuntimeError:
        return 0


def _env_int(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else default
