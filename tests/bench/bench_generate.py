"""Generating against a local stub of the chat API: how near the client comes to what latency alone would allow."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nanosft.conversation import parse_conversation, to_line
from nanosft.generate.planning import make_plan, plan_row, read_dimensions
from nanosft.generate.provider import Answer, Usage
from nanosft.generate.records import PartBuffer, name_attempt, row_meta
from nanosft.knowledge import read_knowledge
from nanosft.store import open_store
from tests.stub_provider import KNOWLEDGE, PRICE_USD, run_stub, write_conversation

IN_FLIGHT = 256
_PART_ROWS = 500
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
    """Start a run of which `num` rows are made: seconds, and CPU's, until it asks for the next."""
    num_planned = num + IN_FLIGHT
    with tempfile.TemporaryDirectory() as folder, run_stub(num=num_planned, begin=num) as stub:
        write_rows(folder, num)
        began_s = time.perf_counter()
        process = subprocess.Popen(
            _command(folder, num_planned, stub.base_url, IN_FLIGHT),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=_ROOT,
        )
        while not stub.count_asked():
            if process.poll() is not None:
                raise RuntimeError(f"generate ended with {process.returncode} before it had asked")
            time.sleep(0.02)
        wall_s = time.perf_counter() - began_s
        times = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        process.kill()
        process.wait()
        return wall_s, (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def write_rows(out: str, num: int) -> None:
    """Put the first rows of the plan as one process flushes them, with the stub's answers: a tenth of a run's time."""
    store, buffer = open_store(out), PartBuffer(0, name_attempt(1))
    plan = make_plan(read_dimensions(), read_knowledge(KNOWLEDGE), seed=0)
    for number in range(num):
        row = plan_row(plan, number)
        messages = write_conversation(row, plan.knowledge.name, plan.knowledge.maker)
        system = [{"role": "system", "content": row.system}] if row.system else []
        usage = Usage(4000, 3800, sum(len(message["content"]) for message in messages) // 4, PRICE_USD)
        meta = row_meta(
            Answer("", "", "stop", "stub", usage),
            row=number,
            cell=row.cell,
            prompt_variant=0,
            attempt=0,
            source="generate",
        )
        buffer.add_row(to_line(parse_conversation({"messages": [*system, *messages], "meta": meta}, where=row.cell)))
        if buffer.num_rows == _PART_ROWS or number == num - 1:
            part = buffer.take()
            assert part is not None
            buffer.put(store, part)


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
