"""Training as users start it: `nanosft train` on identity_a, 2,048 tokens a row, defaults against settings by hand.

    python -m tests.bench train

Each run is the command in a process of its own, with the environment of a user's shell; its rates are those of its
own `metrics.jsonl`. Runs take turns, first on the machine as it is, then with four busy loops a core beside them.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
import torch
from rich.console import Console
from rich.table import Table

ROW_LEN: Final = 2048
SHARED: Final = Path(__file__).parents[3] / "shared"
_LOOPS_PER_CORE: Final = 4
_NUM_CONVERSATIONS: Final = 200
_OWN_VARIABLES: Final = ("OMP_", "GOMP_", "KMP_", "MKL_", "NANOSFT_")
"""Variables that start so are the setting's to decide, whatever the shell that starts the bench has."""


@dataclass(frozen=True)
class Setting:
    """One way to start the command."""

    name: str
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rates:
    """What a run says of its steps after the first, which touches memory for the first time."""

    supervised_per_s: float
    mfu: float
    first_step_s: float

    @property
    def peak(self) -> float:
        """Supervised tokens/s that the matrix peak of the same run would be."""
        return self.supervised_per_s / self.mfu


DEFAULTS: Final = Setting("defaults")
SETTINGS: Final = (
    DEFAULTS,
    Setting("freed memory goes back", env={"GLIBC_TUNABLES": ""}),
    Setting("threads sleep", ("--dtype", "float32"), {"OMP_WAIT_POLICY": "PASSIVE"}),
    Setting("threads spin", ("--dtype", "float32"), {"OMP_WAIT_POLICY": "ACTIVE"}),
    *(
        Setting(f"threads spin {count:,} times", ("--dtype", "float32"), {"GOMP_SPINCOUNT": str(count)})
        for count in (1_000, 10_000, 100_000)
    ),
)
BFLOAT16_SETTINGS: Final = (
    Setting("bfloat16, threads sleep", ("--dtype", "bfloat16"), {"OMP_WAIT_POLICY": "PASSIVE"}),
    Setting("bfloat16, threads spin", ("--dtype", "bfloat16"), {"OMP_WAIT_POLICY": "ACTIVE"}),
)


def run(console: Console, *, quick: bool) -> None:
    """Print supervised tokens/s of every setting, quiet and loaded, and their ratios to the best."""
    settings = SETTINGS
    if torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16"):
        settings += BFLOAT16_SETTINGS
    else:
        console.print("this CPU has no instructions for bfloat16, which takes some 25 times as long: left out")
    num_rows, num_turns = (1, 2) if quick else (8, 3)
    compare(console, settings, num_rows=num_rows, num_turns=num_turns, num_loops=0)
    num_loops = _LOOPS_PER_CORE * len(os.sched_getaffinity(0))
    compare(console, settings, num_rows=1, num_turns=num_turns, num_loops=num_loops)


def compare(
    console: Console, settings: Sequence[Setting], *, num_rows: int, num_turns: int, num_loops: int, num_steps: int = 4
) -> None:
    """Run each setting in turns and print the medians.

    Args:
        console: Where the table goes.
        settings: What is compared.
        num_rows: Packed rows of a step.
        num_turns: Runs of each.
        num_loops: Busy processes beside them.
        num_steps: Steps of a run; the first one does not count.
    """
    found: dict[str, list[Rates]] = {setting.name: [] for setting in settings}
    with _busy_loops(num_loops):
        for _ in range(num_turns):
            for setting in settings:
                rates = measure(setting, num_rows=num_rows, num_steps=num_steps)
                found[setting.name].append(rates)
                console.print(f"  {setting.name}: {rates.supervised_per_s:,.0f} supervised tokens/s")
    medians = {name: statistics.median(rates.supervised_per_s for rates in runs) for name, runs in found.items()}
    best = max(medians.values())
    load = f"{num_loops} busy loops beside it" if num_loops else "nothing of ours beside it"
    table = Table(title=f"nanosft train, identity_a, {num_rows} rows of {ROW_LEN} tokens a step, {load}")
    for name in ("setting", "supervised/s", "of the best", "of its matrix peak", "first step", "each run"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for name, runs in found.items():
        table.add_row(
            name,
            f"{medians[name]:,.0f}",
            f"{medians[name] / best:.0%}",
            f"{statistics.median(rates.mfu for rates in runs):.0%} of {statistics.median(r.peak for r in runs):,.0f}",
            f"{statistics.median(rates.first_step_s for rates in runs):.1f} s",
            " ".join(f"{rates.supervised_per_s:,.0f}" for rates in runs),
        )
    console.print(table)


def measure(setting: Setting, *, num_rows: int, num_steps: int) -> Rates:
    """Run the command once."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data.jsonl")
        with (SHARED / "data/identity_a.jsonl").open("rb") as lines:
            data.write_bytes(b"".join(next(lines) for _ in range(_NUM_CONVERSATIONS)))
        out = Path(folder, "run")
        command = [
            *(sys.executable, "-m", "nanosft", "train", "--base", str(SHARED / "nanochat_base")),
            *("--data", str(data), "--out", str(out), "--max-steps", str(num_steps), "--sample-tokens", "0"),
            *("--max-seq-len", str(ROW_LEN), "--total-batch-size", str(num_rows * ROW_LEN), *setting.options),
        ]
        env = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
        done = subprocess.run(command, env={**env, **setting.env}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{setting.name}: exit code {done.returncode}: {done.stderr[-2000:]}")
        records = [orjson.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    first, *steps = [record for record in records if "step_s" in record]
    step_s = sum(line["step_s"] for line in steps)
    return Rates(
        sum(line["num_supervised"] for line in steps) / step_s,
        sum(line["mfu"] * line["step_s"] for line in steps) / step_s,
        first["step_s"],
    )


@contextmanager
def _busy_loops(num: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
