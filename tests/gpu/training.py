"""Checks of the train step on a GPU: nanochat's own twelve steps, a run cut in two, a state copied beside the next
steps, and collectives of one rank.

They need the packages that `nanosft.train` imports, which a machine that was lent for a GPU may lack; the other checks
do not.
"""

import tempfile
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from nanosft.nanochat import load_checkpoint
from nanosft.train.batch import MicroBatch, batch_from_rows
from nanosft.train.optim import MuonAdamW, OptimizerConfig, Schedule, group_parameters, muon_momentum
from nanosft.train.snapshot import open_copy_stream, take_snapshot
from nanosft.train.step import LossModule, train_step

GOLDEN: Final = Path(__file__).parents[1] / "golden" / "nanochat" / "g5"
NUM_STEPS: Final = 12
TOLERANCES: Final = {"float32": 1e-4, "float32 compiled": 1e-4, "bfloat16": 3e-2}
"""Largest relative difference of a step's loss from nanochat's, which computed in float32 on a CPU."""


def check_trajectory(device: torch.device) -> list[dict[str, Any]]:
    """Losses of nanochat's twelve golden steps in each dtype, and with compiled blocks."""
    golden = torch.load(GOLDEN / "sft_trajectory.pt", weights_only=True)
    checks = []
    for name, tolerance in TOLERANCES.items():
        module, optimizer = _begin(golden, device, name)
        losses = _train(module, optimizer, golden, device, range(NUM_STEPS))
        error = max(abs(one / float(other) - 1) for one, other in zip(losses, golden["losses"], strict=True))
        checks.append({"name": f"twelve golden steps in {name}", "ok": error <= tolerance, "value": error})
    return checks


def check_resume(device: torch.device) -> dict[str, Any]:
    """Twelve steps at once, and six and six with model and moments through a file in between: the largest difference.

    On a CPU it is none; on a GPU sums of gradients by atomic additions may come in another order.
    """
    golden = torch.load(GOLDEN / "sft_trajectory.pt", weights_only=True)
    module, optimizer = _begin(golden, device, "float32")
    whole = _train(module, optimizer, golden, device, range(NUM_STEPS))
    module, optimizer = _begin(golden, device, "float32")
    halves = _train(module, optimizer, golden, device, range(NUM_STEPS // 2))
    with tempfile.TemporaryFile() as file:
        torch.save([module.model.state_dict(), optimizer.state, optimizer.num_updates], file)
        file.seek(0)
        model, moments, num_updates = torch.load(file, map_location=device, weights_only=True)
    module, optimizer = _begin(golden, device, "float32")
    module.model.load_state_dict(model)
    optimizer.state, optimizer.num_updates = moments, num_updates
    halves += _train(module, optimizer, golden, device, range(NUM_STEPS // 2, NUM_STEPS))
    error = max(abs(one / other - 1) for one, other in zip(halves, whole, strict=True))
    return {
        "name": "killed after six steps and resumed",
        "ok": error <= (0 if device.type == "cpu" else 1e-4),
        "value": error,
    }


def check_snapshot(device: torch.device) -> dict[str, Any]:
    """A state copied beside the steps that follow is the one of its own step."""
    golden = torch.load(GOLDEN / "sft_trajectory.pt", weights_only=True)
    module, optimizer = _begin(golden, device, "float32")
    _train(module, optimizer, golden, device, range(2))
    source = {"params": module.model.state_dict(), "optimizer": optimizer.state}
    wanted = take_snapshot(source).tensors
    stream = open_copy_stream(device)
    snapshot = take_snapshot({"ballast": {str(num): _ballast(device) for num in range(8)}, **source}, stream=stream)
    if snapshot.copied is not None:
        optimizer.readers.append(snapshot.copied)
    _train(module, optimizer, golden, device, range(2, 4))
    snapshot.wait()
    is_same = all(_is_same(wanted[name], snapshot.tensors[name]) for name in source)
    return {"name": "a state copied while steps go on", "ok": is_same}


def _ballast(device: torch.device) -> Tensor:
    """What is copied first, so that the copy still goes on when the next step updates: 64 MiB."""
    return torch.zeros(1 << (24 if device.type == "cuda" else 4), device=device)


def _is_same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, Tensor):
        return torch.equal(wanted, found)
    return wanted.keys() == found.keys() and all(_is_same(wanted[name], found[name]) for name in wanted)


def check_collectives(device: torch.device, backend: str) -> dict[str, Any]:
    """A group of one rank sums and sends a tensor of the device: NCCL, or gloo beside it."""
    name = f"one rank over {backend}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=0, world_size=1)
            try:
                tensor = torch.arange(1024.0, device=device)
                dist.all_reduce(tensor)
                dist.broadcast(tensor, 0)
                is_same = torch.equal(tensor.cpu(), torch.arange(1024.0))
            finally:
                dist.destroy_process_group()
    except RuntimeError as exc:
        return {"name": name, "ok": False, "error": str(exc)[:200]}
    return {"name": name, "ok": is_same}


def _begin(golden: dict[str, Any], device: torch.device, name: str) -> tuple[LossModule, MuonAdamW]:
    dtype = torch.bfloat16 if name.startswith("bfloat16") else torch.float32
    model = load_checkpoint(str(GOLDEN), device=device, compute_dtype=dtype).model
    rates = golden["lr"]
    config = OptimizerConfig(
        matrix_lr=rates["matrix"],
        embedding_lr=rates["embedding"],
        unembedding_lr=rates["unembedding"],
        scalar_lr=rates["scalar"],
    )
    groups = group_parameters(model, config, width=model.config.n_embd)
    return LossModule(model, compiled=name.endswith("compiled")), MuonAdamW(groups)


def _train(
    module: LossModule, optimizer: MuonAdamW, golden: dict[str, Any], device: torch.device, steps: range
) -> list[float]:
    """The losses of some of the golden steps."""
    schedule = Schedule(init_lr_frac=golden["init_lr_frac"])
    losses = []
    for step in steps:
        batch: MicroBatch = batch_from_rows(golden["tokens"][step].long(), golden["mask"][step]).to(device)
        result = train_step(
            module,
            optimizer,
            [batch],
            num_supervised=len(batch.labels),
            lr_scale=schedule.lr_scale(step, NUM_STEPS),
            momentum=muon_momentum(step),
        )
        losses.append(result.loss)
    return losses
