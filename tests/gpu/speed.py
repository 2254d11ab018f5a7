"""Supervised tokens a second of forward and backward pass for the shapes of d12 and d20, random weights.

The optimizer's update is not in it: its package needs pydantic, which a machine with a GPU may not have.
"""

import time
from typing import Any, Final

import torch

from nanosft.nanochat.attention import Documents
from nanosft.nanochat.generations import GENERATIONS, ModelConfig, estimate_flops_per_token
from nanosft.train.loss import sum_losses
from tests.gpu.checks import make_model

ROW_LEN: Final = 2048
PEAK_FLOPS: Final = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "4090": 165e12}
_NUM_STEPS: Final = 5
_DOCUMENT_LEN: Final = 512
_SUPERVISED_SHARE: Final = 0.88


def measure_speeds(device: torch.device, *, deadline_s: float) -> list[dict[str, Any]]:
    """Each depth, micro-batch, attention scope, eager and compiled, until the deadline (of the monotonic clock)."""
    rows: list[dict[str, Any]] = []
    for depth in (12, 20):
        config = ModelConfig(ROW_LEN, 32_768, depth, depth // 2, depth // 2, 64 * depth, "SSSL")
        for num_rows in (4, 8, 16, 32):
            for scope in ("document", "row"):
                for compiled in (True, False):
                    if time.monotonic() > deadline_s:
                        rows.append({"left_out": f"d{depth} x {num_rows} {scope} compiled={compiled}"})
                        continue
                    try:
                        found = measure(config, device, num_rows, scope=scope, compiled=compiled)
                    except torch.OutOfMemoryError:
                        found = {"out_of_memory": True}
                    what = {"depth": depth, "rows": num_rows, "attention": scope, "compiled": compiled}
                    rows.append(what | found)
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
    return rows


def measure(
    config: ModelConfig, device: torch.device, num_rows: int, *, scope: str, compiled: bool, row_len: int = ROW_LEN
) -> dict[str, Any]:
    """One shape: supervised tokens/s, and the share of the bfloat16 peak where it is known."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = make_model(config, "g5", device, dtype)
    if compiled:
        model.compile_blocks()
    num_tokens = num_rows * row_len
    span = _DOCUMENT_LEN if scope == "document" else row_len
    ids = torch.arange(num_tokens, device=device).remainder(config.vocab_size).view(1, -1)
    documents = Documents.from_lengths([span] * (num_tokens // span), device)
    supervised = torch.arange(int(_SUPERVISED_SHARE * num_tokens), device=device)
    labels = ids[0, supervised + 1]
    started_s = first_s = 0.0
    for step in range(_NUM_STEPS + 1):
        begin_s = time.perf_counter()
        hidden = model.hidden(ids, documents=documents)[0].index_select(0, supervised)
        settings: dict[str, Any] = {"vocab_size": config.vocab_size, "softcap": 15.0, "compiled": compiled}
        sum_losses(hidden, model.lm_head.weight, labels, **settings).backward()
        model.zero_grad()
        if step == 0:
            _synchronize(device)
            first_s, started_s = time.perf_counter() - begin_s, time.perf_counter()
    _synchronize(device)
    step_s = (time.perf_counter() - started_s) / _NUM_STEPS
    flops = estimate_flops_per_token(config, GENERATIONS["g5"], span, num_head_tokens=_SUPERVISED_SHARE) * num_tokens
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = next((value for part, value in PEAK_FLOPS.items() if part in name), None)
    return {
        "supervised_per_s": round(len(supervised) / step_s),
        "mfu": peak and round(flops / step_s / peak, 3),
        "first_step_s": round(first_s, 1),
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
