"""Mix at 100 thousand, 1 million and 5 million conversations: rows/s, MB/s and peak memory, beside HF `datasets`.

The rows are real ones (identity sets, `chitchat-dataset`, `chatterbot-corpus`), repeated under another substitution of
letters each time, so that lengths and turns stay real and no repetition is a duplicate; 2 % are exact copies and 3 %
near copies. Both sides read and write the same JSONL on the same disk, each as a process from its start to its end:
ours is the command a user gives. Runs alternate; the table has each one's median.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread

import orjson
from rich.console import Console
from rich.table import Table

from tests.near_truth import judge_real_sets
from tests.planted import find_planted
from tests.real_sets import REAL_RECIPE, Messages, read_chatterbot, read_chitchat, write_jsonl

_MIB = 1 << 20
_SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[3] / "shared"))
_PEER_VENV = Path(__file__).parents[2] / ".venv-peer/bin/python"
_PEER_PYTHON = os.environ.get("BENCH_PEER_PYTHON", str(_PEER_VENV))
"""A Python that imports `datasets`: by `make bench`, one of its own, as nothing but this figure needs it."""
_SIZES = {100_000: 3, 1_000_000: 1, 5_000_000: 1}
"""Conversations, and how often each variant is run."""
_PEER_LIMIT = 1_000_000
"""The most conversations that the peer is given without --full: five million take it some minutes."""
_ROW_BYTES = 1600
_DISK_FACTOR = 5
"""Data, spill, segments, output, and the peer's cache."""
_VARIANTS = (("all", 1024), ("all", 256), ("no de-duplication", 1024), ("no de-duplication", 256))

_PEER = """
import sys
import datasets
datasets.disable_progress_bars()
out, *files = sys.argv[1:]
cache = out + ".cache"
sets = [
    datasets.load_dataset("json", data_files=name, split="train", cache_dir=cache) for name in files
]
num = sum(map(len, sets))
shares = [len(item) / num for item in sets]
mixed = datasets.interleave_datasets(sets, shares, seed=0, stopping_strategy="all_exhausted")
mixed.shuffle(seed=0).to_json(out, num_proc=2)
"""


@dataclass(frozen=True)
class Measured:
    """One run of a process tree."""

    elapsed_s: float
    process_bytes: int
    tree_bytes: int


def run(console: Console, *, quick: bool) -> None:
    """Print the tables; `quick` leaves the peer out at five million."""
    with tempfile.TemporaryDirectory(prefix="bench-mix-") as name:
        directory = Path(name)
        for num, num_runs in _SIZES.items():
            if shutil.disk_usage(directory).free < num * _ROW_BYTES * _DISK_FACTOR:
                console.print(f"NOT MEASURED: {num:,} rows need {num * _ROW_BYTES * _DISK_FACTOR / 1e9:.0f} GB of disk")
                continue
            with_peer = _has_peer() and (num <= _PEER_LIMIT or not quick)
            console.print(_measure_size(directory, num, num_runs, with_peer=with_peer))
        if not _has_peer():
            console.print(f"NOT COMPARED: {_PEER_PYTHON} has no `datasets`: run `make bench`, or set BENCH_PEER_PYTHON")
        _show_real(console, directory)
        _show_planted(console, directory)


def _mix(recipe: Path, out: Path, limit: int, work: Path, *, workers: int = 0) -> list[str]:
    command = [sys.executable, "-m", "nanosft", "mix", "--json", "--recipe", str(recipe), "--out", str(out)]
    return [*command, "--memory-limit", str(limit), "--work-dir", str(work), "--workers", str(workers)]


def _show_real(console: Console, directory: Path) -> None:
    """Three real sources with 30 % synthetic by supervised tokens; near duplicates of clean sets judged exactly."""
    write_jsonl(directory / "chitchat.jsonl", read_chitchat())
    write_jsonl(directory / "chatterbot.jsonl", read_chatterbot())
    recipe = directory / "real.toml"
    recipe.write_text(REAL_RECIPE.format(shared=_SHARED, folder=directory))
    table = Table(title="mix: three real sources, 30 % synthetic by supervised tokens", title_justify="left")
    for heading in ("workers", "limit", "achieved", "peak of a process", "SHA-256 of the manifest"):
        table.add_column(heading, justify="right")
    for workers, limit in ((1, 256), (2, 256), (1, 1024), (2, 1024)):
        out = directory / f"real-{workers}-{limit}"
        found = measure(_mix(recipe, out, limit, directory / "work", workers=workers))
        manifest = (out / "manifest.json").read_bytes()
        table.add_row(
            str(workers),
            f"{limit} MiB",
            f"{orjson.loads(manifest)['counts']['synthetic_share']:.4%}",
            f"{found.process_bytes / _MIB:.0f} MiB",
            hashlib.sha256(manifest).hexdigest()[:16],
        )
    console.print(table)
    judged = judge_real_sets(directory)
    console.print(
        f"near duplicates in clean real sets: {judged.num_dropped} of {judged.num_rows:,} rows dropped, "
        f"{judged.num_wrong} of them wrongly: {judged.num_wrong / judged.num_rows:.3%}"
    )


def _show_planted(console: Console, directory: Path) -> None:
    """Exact copies, near copies and held-out rows planted among real ones: how many are found."""
    found = find_planted(directory / "planted")
    console.print(
        f"planted in real sets: {found.num_exact_found} of {found.num_exact} exact copies found, "
        f"{found.num_near_found} of {found.num_near} near copies, {found.num_held_out_found} of {found.num_held_out} "
        "held-out rows"
    )


def _measure_size(directory: Path, num: int, num_runs: int, *, with_peer: bool) -> Table:
    table = Table(title=f"mix: {num:,} rows, median of {num_runs}", title_justify="left")
    for heading in (
        "checks",
        "limit",
        "time s",
        "rows/s",
        "MB/s",
        "of datasets",
        "peak of a process",
        "all processes (PSS)",
    ):
        table.add_column(heading, justify="right")
    data = directory / "data"
    data.mkdir()
    size = write_sources(data, num)
    found: dict[tuple[str, int], list[Measured]] = {variant: [] for variant in _VARIANTS}
    theirs = []
    for _ in range(num_runs):
        for checks, limit in _VARIANTS:
            recipe = _write_recipe(directory, data, dedup=checks == "all")
            found[checks, limit].append(measure(_mix(recipe, directory / "out", limit, directory / "work")))
            shutil.rmtree(directory / "out")
        if with_peer:
            theirs.append(_measure_peer(directory, data))
    peer_s = median(run.elapsed_s for run in theirs) if theirs else None
    for (checks, limit), runs in found.items():
        _add_row(table, num, checks, f"{limit} MiB", size, runs, peer_s)
    if theirs:
        _add_row(table, num, "none (datasets)", "-", size, theirs, peer_s)
    shutil.rmtree(data)
    return table


def _add_row(
    table: Table, num: int, checks: str, limit: str, size: int, runs: list[Measured], peer_s: float | None
) -> None:
    elapsed_s = median(run.elapsed_s for run in runs)
    table.add_row(
        checks,
        limit,
        f"{elapsed_s:.1f}",
        f"{num / elapsed_s:,.0f}",
        f"{size / 1e6 / elapsed_s:.0f}",
        f"{peer_s / elapsed_s:.2f} x" if peer_s is not None else "-",
        f"{max(run.process_bytes for run in runs) / _MIB:.0f} MiB",
        f"{max(run.tree_bytes for run in runs) / _MIB:.0f} MiB",
    )


def _has_peer() -> bool:
    probe = [_PEER_PYTHON, "-c", "import datasets"]
    return Path(_PEER_PYTHON).exists() and not subprocess.run(probe, capture_output=True, check=False).returncode


def _measure_peer(directory: Path, data: Path) -> Measured:
    out = directory / "peer.jsonl"
    files = sorted(map(str, data.glob("*.jsonl")))
    environ = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(directory / "hf")}
    found = measure([_PEER_PYTHON, "-c", _PEER, str(out), *files], environ)
    out.unlink()
    shutil.rmtree(directory / "peer.jsonl.cache")
    return found


def measure(command: list[str], environ: dict[str, str] | None = None) -> Measured:
    """Run a command; sample the memory of its processes."""
    started_s = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, start_new_session=True, env={**os.environ, **(environ or {})}
    )
    peaks = [0, 0]
    done = Event()

    def watch() -> None:
        while not done.wait(0.2):
            found = list(_read_memory(process.pid))
            if found:
                peaks[0] = max(peaks[0], *(peak for peak, _ in found))
                peaks[1] = max(peaks[1], sum(share for _, share in found))

    thread = Thread(target=watch)
    thread.start()
    process.communicate()
    elapsed_s = time.monotonic() - started_s
    done.set()
    thread.join()
    if process.returncode:
        raise RuntimeError(f"{command[:4]} failed with {process.returncode}")
    return Measured(elapsed_s, *peaks)


def _read_memory(session: int) -> Iterator[tuple[int, int]]:
    """Peak resident bytes and proportional share of each process of a session."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            shares = dict(line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
        except OSError:
            continue
        if "VmHWM" in status:
            yield int(status["VmHWM"].split()[0]) * 1024, int(shares["Pss"].split()[0]) * 1024


def _write_recipe(directory: Path, data: Path, *, dedup: bool) -> Path:
    text = "" if dedup else '[deduplicate]\nexact = false\nnear = "off"\n'
    for path in sorted(data.glob("*.jsonl")):
        text += f'[[sources]]\nname = "{path.stem}"\nuri = "{path}"\n'
    recipe = directory / "recipe.toml"
    recipe.write_text(text)
    return recipe


def write_sources(directory: Path, num: int) -> int:
    """Write `num` conversations as three sources; returns their bytes."""
    sets = {
        "identity": [
            orjson.loads(line) for name in ("a", "b") for line in (_SHARED / f"data/identity_{name}.jsonl").open()
        ],
        "chitchat": read_chitchat(),
        "chatterbot": read_chatterbot(),
    }
    total = sum(map(len, sets.values()))
    size = 0
    for name, chats in sets.items():
        with (directory / f"{name}.jsonl").open("wb") as file:
            for line in _repeat(chats, num * len(chats) // total, random.Random(name)):
                size += file.write(line)
    return size


def _repeat(chats: list[Messages], num: int, rng: random.Random) -> Iterator[bytes]:
    groups: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for letter in sorted({letter for chat in chats for item in chat for letter in item["content"] if letter.isalpha()}):
        groups[ord(letter) >> 7, letter.islower()].append(letter)
    table: dict[int, int] = {}
    last = b""
    for index in range(num):
        chat = chats[index % len(chats)]
        if index % len(chats) == 0 and index:
            table = {}
            for letters in groups.values():
                table |= str.maketrans("".join(letters), "".join(rng.sample(letters, len(letters))))
        draw = rng.random()
        if last and draw < 0.02:
            yield last
            continue
        if last and draw < 0.05:
            yield last.replace(b" ", b"  ", 3).replace(b".", b"!", 1)
            continue
        changed = (
            [{"role": item["role"], "content": item["content"].translate(table)} for item in chat] if table else chat
        )
        last = orjson.dumps({"messages": changed}, option=orjson.OPT_APPEND_NEWLINE)
        yield last


if __name__ == "__main__":
    run(Console(width=160), quick="--full" not in sys.argv)
