"""Generating against a local stub of the chat API: how near the client comes to what latency alone would allow."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.stub_provider import KNOWLEDGE, run_stub

IN_FLIGHT = 256
_ROOT = Path(__file__).parents[2]


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
    for num in (2_000, 20_000) if quick else (20_000, 200_000):
        wall_s, cpu_s = measure_restart(num)
        console.print(f"restart with {num:,} rows made: first request after {wall_s:.1f} s, {cpu_s:.1f} s of CPU")


def measure_restart(num: int) -> tuple[float, float]:
    """Stop a run that has made `num` rows, and start it again: seconds, and CPU's, until it asks for the next."""
    num_planned = num + 4 * IN_FLIGHT
    with tempfile.TemporaryDirectory() as folder, run_stub(num=num_planned) as stub:
        command = _command(folder, num_planned, stub.base_url, IN_FLIGHT)

        def start(num_asked: int) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=_ROOT)
            while stub.count_asked() < num_asked:
                if process.poll() is not None:
                    raise RuntimeError(f"generate ended with {process.returncode} before it had asked")
                time.sleep(0.02)
            return process

        first = start(num)
        first.send_signal(signal.SIGTERM)
        first.wait()
        num_asked, began_s = stub.count_asked(), time.perf_counter()
        second = start(num_asked + 1)
        wall_s = time.perf_counter() - began_s
        times = Path(f"/proc/{second.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        second.kill()
        second.wait()
        return wall_s, (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def measure(num: int, latency_s: float, *, in_flight: int = IN_FLIGHT) -> Figures:
    """Generate `num` rows in a process of their own."""
    with tempfile.TemporaryDirectory() as folder, run_stub(num=num, latency_s=latency_s) as stub:
        process = subprocess.Popen(
            _command(folder, num, stub.base_url, in_flight),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_ROOT,
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


def _command(out: str, num: int, base_url: str, in_flight: int) -> list[str]:
    return [
        *(sys.executable, "-m", "nanosft", "generate", "--out", out, "--knowledge", KNOWLEDGE, "--num", str(num)),
        *("--model", "stub", "--base-url", base_url, "--concurrency", str(in_flight), "--json"),
    ]
