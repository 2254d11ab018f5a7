"""Generating against a local stub of the chat API: how near the client comes to what latency alone would allow."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.stub_provider import KNOWLEDGE, run_stub

IN_FLIGHT = 256


@dataclass(frozen=True)
class Figures:
    """Of one process."""

    rows_per_s: float
    cpu_s: float
    peak_mib: float


def run(console: Console, *, quick: bool) -> None:
    """Print rows/s as a share of the ideal, CPU a row, and peak memory at two sizes."""
    table = Table(title=f"generate, {IN_FLIGHT} in flight, every gate on")
    for name in ("latency", "rows", "rows/s", "ideal", "share", "wanted", "CPU ms/row", "peak MiB"):
        table.add_column(name, justify="right")
    start = measure(1, 0.0)
    plan = [(0.3, 2_000 if quick else 8_000, "75 %"), (2.0, 768 if quick else 2_560, "95 %")]
    for latency_s, num, wanted in plan:
        figures = measure(num, latency_s)
        ideal = IN_FLIGHT / latency_s
        cpu_ms = (figures.cpu_s - start.cpu_s) / num * 1e3
        table.add_row(
            f"{latency_s:g} s", f"{num:,}", f"{figures.rows_per_s:.0f}", f"{ideal:.0f}",
            f"{figures.rows_per_s / ideal:.0%}", wanted, f"{cpu_ms:.2f}", f"{figures.peak_mib:.0f}",
        )  # fmt: skip
    small, large = (1_000, 5_000) if quick else (1_000, 50_000)
    peaks = [measure(num, 0.0, in_flight=64) for num in (small, large)]
    for num, figures in zip((small, large), peaks, strict=True):
        table.add_row("0 s", f"{num:,}", f"{figures.rows_per_s:.0f}", "", "", "", "", f"{figures.peak_mib:.0f}")
    console.print(table)
    console.print(f"peak memory of {large:,} rows / {small:,} rows = {peaks[1].peak_mib / peaks[0].peak_mib:.2f}")


def measure(num: int, latency_s: float, *, in_flight: int = IN_FLIGHT) -> Figures:
    """Generate `num` rows in a process of their own."""
    with tempfile.TemporaryDirectory() as folder, run_stub(num=num, latency_s=latency_s) as stub:
        options = {
            "--out": folder,
            "--knowledge": KNOWLEDGE,
            "--num": num,
            "--model": "stub",
            "--base-url": stub.base_url,
        }
        arguments = [str(text) for option in options.items() for text in option]
        process = subprocess.Popen(
            [sys.executable, "-m", "nanosft", "generate", *arguments, f"--concurrency={in_flight}", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode != 0:
            raise RuntimeError(f"generate exited with {process.returncode}")
        summary = json.loads(output)
        assert summary["num_accepted"] == num, summary["counts"]
        return Figures(summary["rows_per_s"], usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
