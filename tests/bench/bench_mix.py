"""Mix at 100 thousand, 1 million and 5 million conversations: rows/s, MB/s and peak memory, beside HF `datasets`.

The rows are real ones (identity sets, `chitchat-dataset`, `chatterbot-corpus`), repeated under another substitution of
letters each time, so that lengths and turns stay real and no repetition is a duplicate; 2 % are exact copies and 3 %
near copies. Both sides read and write the same JSONL on the same disk, each in a process of its own.
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
from threading import Event, Thread

import orjson
from rich.console import Console
from rich.table import Table

from tests.near_truth import judge_real_sets
from tests.real_sets import Messages, read_chatterbot, read_chitchat, write_jsonl

_MIB = 1 << 20
_SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[3] / "shared"))
_PEER_PYTHON = os.environ.get("BENCH_PEER_PYTHON", sys.executable)
"""A Python that imports `datasets`; it is not in the lock, as nothing but this figure needs it."""

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
print(len(mixed))
"""
_REAL = """
synthetic_share = 0.3
by = "supervised_tokens"
tokenizer = "{shared}/nanochat_base"
[[sources]]
name = "identity"
uri = "{shared}/data/identity_?.jsonl"
synthetic = true
[[sources]]
name = "chitchat"
uri = "{directory}/chitchat.jsonl"
[[sources]]
name = "chatterbot"
uri = "{directory}/chatterbot.jsonl"
"""
_OURS = """
import os
import sys
from nanosft.mix.stage import make_mixture
from nanosft.settings.mix import MixSettings
if __name__ == "__main__":
    recipe, out, limit, work = sys.argv[1:]
    workers = int(os.environ.get("NUM_WORKERS", "0"))
    report = make_mixture(
        MixSettings(recipe=recipe, out=out, memory_limit=int(limit), work_dir=work, workers=workers)
    )
    print(report.num_rows + report.num_val)
"""


@dataclass(frozen=True)
class Measured:
    """One run of a process tree."""

    num_rows: int
    elapsed_s: float
    process_bytes: int
    tree_bytes: int


def run(console: Console, *, quick: bool) -> None:
    """Print the tables; `quick` stops at 100 thousand rows."""
    with tempfile.TemporaryDirectory(prefix="bench-mix-") as name:
        directory = Path(name)
        table = Table(title="mix: time and memory by size", title_justify="left")
        for heading in (
            "rows",
            "checks",
            "limit",
            "time s",
            "rows/s",
            "MB/s",
            "peak of a process",
            "all processes (PSS)",
        ):
            table.add_column(heading, justify="right")
        ratios: list[str] = []
        for num in (100_000,) if quick else (100_000, 1_000_000, 5_000_000):
            _measure_size(directory, num, table, ratios)
        console.print(table)
        for line in ratios:
            console.print(line)
        _show_real(console, directory)


def _show_real(console: Console, directory: Path) -> None:
    """Three real sources with 30 % synthetic by supervised tokens; near duplicates of clean sets judged exactly."""
    write_jsonl(directory / "chitchat.jsonl", read_chitchat())
    write_jsonl(directory / "chatterbot.jsonl", read_chatterbot())
    recipe = directory / "real.toml"
    recipe.write_text(_REAL.format(shared=_SHARED, directory=directory))
    table = Table(title="mix: three real sources, 30 % synthetic by supervised tokens", title_justify="left")
    for heading in ("workers", "limit", "achieved", "peak of a process", "SHA-256 of the manifest"):
        table.add_column(heading, justify="right")
    for workers, limit in ((1, 256), (2, 256), (1, 1024), (2, 1024)):
        out = directory / f"real-{workers}-{limit}"
        environ = {"NUM_WORKERS": str(workers)}
        found = measure(
            [sys.executable, "-c", _OURS, str(recipe), str(out), str(limit), str(directory / "work")], environ
        )
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


def _measure_size(directory: Path, num: int, table: Table, ratios: list[str]) -> None:
    data = directory / "data"
    data.mkdir()
    size = write_sources(data, num)
    rates = {}
    for checks, limit in (("all", 1024), ("all", 256), ("no de-duplication", 1024)):
        if checks == "all" and limit == 1024 and num > 1_000_000:
            continue
        recipe = _write_recipe(directory, data, dedup=checks == "all")
        out = directory / "out"
        found = measure([sys.executable, "-c", _OURS, str(recipe), str(out), str(limit), str(directory / "work")])
        rates[checks, limit] = num / found.elapsed_s
        _add_row(table, num, checks, f"{limit} MiB", size, found)
        shutil.rmtree(out)
    peer = _measure_peer(directory, data) if num <= 1_000_000 else None
    if peer is None:
        ratios.append(f"{num:,} rows: no Python with `datasets` (set BENCH_PEER_PYTHON): not compared")
    else:
        _add_row(table, num, "none (datasets)", "-", size, peer)
        theirs = num / peer.elapsed_s
        ratios += [
            f"{num:,} rows, {checks}, {limit} MiB: {rate / theirs:.2f} x the rate of datasets"
            for (checks, limit), rate in rates.items()
        ]
    shutil.rmtree(data)


def _add_row(table: Table, num: int, checks: str, limit: str, size: int, found: Measured) -> None:
    table.add_row(
        f"{num:,}",
        checks,
        limit,
        f"{found.elapsed_s:.1f}",
        f"{num / found.elapsed_s:,.0f}",
        f"{size / 1e6 / found.elapsed_s:.0f}",
        f"{found.process_bytes / _MIB:.0f} MiB",
        f"{found.tree_bytes / _MIB:.0f} MiB",
    )


def _measure_peer(directory: Path, data: Path) -> Measured | None:
    probe = subprocess.run([_PEER_PYTHON, "-c", "import datasets"], capture_output=True, check=False)
    if probe.returncode:
        return None
    out = directory / "peer.jsonl"
    files = sorted(map(str, data.glob("*.jsonl")))
    found = measure(
        [_PEER_PYTHON, "-c", _PEER, str(out), *files], {"HF_HUB_OFFLINE": "1", "HF_HOME": str(directory / "hf")}
    )
    out.unlink()
    shutil.rmtree(directory / "peer.jsonl.cache")
    return found


def measure(command: list[str], environ: dict[str, str] | None = None) -> Measured:
    """Run a command that prints its number of rows; sample the memory of its processes."""
    started_s = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, start_new_session=True, env={**os.environ, **(environ or {})}, text=True
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
    output, _ = process.communicate()
    elapsed_s = time.monotonic() - started_s
    done.set()
    thread.join()
    if process.returncode:
        raise RuntimeError(f"{command[:3]} failed with {process.returncode}")
    return Measured(int(output.split()[-1]), elapsed_s, *peaks)


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
