"""Run every check and the table of speeds, and print one JSON object; without a GPU say so in one line.

python -m tests.gpu
"""

import json
import sys
import time
from importlib import import_module
from typing import Any

import torch

from tests.gpu.checks import check_attention, check_generation, check_head_memory
from tests.gpu.speed import measure_speeds

_LIMIT_S = 420.0
"""After which no further speed is measured: all has to fit into eight minutes."""


def main() -> int:
    """1 where a check fails."""
    if not torch.cuda.is_available():
        print("no GPU that torch can use: nothing was checked")  # noqa: T201 - this program's output
        return 0
    from nanosft.nanochat.attention import activate_flash_attention  # noqa: PLC0415 - after the look for a GPU
    from nanosft.nanochat.generations import GENERATIONS  # noqa: PLC0415

    device, started_s = torch.device("cuda", 0), time.monotonic()
    checks = []
    flash = ["FA2"] if activate_flash_attention(device) == "FA2" else ["FA3", "FA2"]
    for impl in flash:
        if impl == "FA2" and len(flash) > 1:
            torch.nn.attention.restore_flash_attention_impl()
        checks += check_attention(device, label=impl)
    activate_flash_attention(device)
    for generation in GENERATIONS:
        for dtype in (torch.bfloat16, torch.float32):
            checks += check_generation(generation, device, dtype, backend="inductor")
    checks.append(check_head_memory(device))
    checks += check_training(device)
    result = {
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(device),
        "flash_attention": flash,
        "checks": checks,
        "speeds": measure_speeds(device, deadline_s=started_s + _LIMIT_S),
        "seconds": round(time.monotonic() - started_s, 1),
    }
    print(json.dumps(result))  # noqa: T201
    return 0 if all(check["ok"] for check in checks) else 1


def check_training(device: torch.device) -> list[dict[str, Any]]:
    """The checks of `training`; where the packages that it needs are not installed, that is told and no failure."""
    try:
        training = import_module("tests.gpu.training")  # a machine that was lent may have torch alone
    except ImportError as exc:
        return [{"name": "golden steps, resume, snapshot, collectives", "ok": True, "left_out": f"no {exc.name}"}]
    collectives = [training.check_collectives(device, backend) for backend in ("nccl", "gloo")]
    return [
        *training.check_trajectory(device),
        training.check_resume(device),
        training.check_snapshot(device),
        *collectives,
    ]


if __name__ == "__main__":
    sys.exit(main())
