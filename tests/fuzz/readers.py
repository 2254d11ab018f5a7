"""Random and broken inputs for every reader: only a NanosftError may come out, in bounded time.

Each reader gets values that are nearly right: a valid example with bytes changed, values swapped for others, and
pieces repeated. An input that takes a reader to a line of nanosft that none before had reached is an example too from
then on. What is said to a person stays within a bound too.
"""

import gzip
import io
import json
import pickle
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import Any, Final

import orjson
import torch
import zstandard

import nanosft
from nanosft.conversation import Conversation, Message, parse_line, to_line
from nanosft.data import iter_lines, list_data_objects
from nanosft.errors import NanosftError
from nanosft.generate.planning import read_dimensions
from nanosft.generate.provider import parse_answer
from nanosft.manifest import Manifest, ManifestObject, parse_manifest
from nanosft.mix.recipe import parse_recipe
from nanosft.nanochat.tensors import load_torch
from nanosft.nanochat.tokenizer import parse_tokenizer
from nanosft.submit.run_file import parse_run
from tests.fuzz.http import EXAMPLES, replying
from tests.fuzz.records import make_record_readers

GOLDEN: Final = Path(__file__).parents[1] / "golden"
MAX_SECONDS: Final = 20.0
MAX_MESSAGE_CHARS: Final = 4000
_MAX_KEPT_BYTES: Final = 1 << 16
_NANOSFT: Final = str(Path(nanosft.__file__).parent)
_ODD: Final[tuple[Any, ...]] = (
    None, True, -1, 2**63, 2**64, 1e308, float("inf"), "", "\0", "\ud7ff", "x" * 70_000, [], {}, [[[[]]]], {"": {}},
    "../../x", "<|bos|>", "\x1b[2J", [0] * 3000,
)  # fmt: skip

_PIECES: Final = (b"[" * 2000, b"9" * 5000, b"\n" * 2000, b'"', b"{", b"\xff\xfe", b"\\u0000")


@dataclass
class Found:
    """What came of the inputs of each reader.

    Attributes:
        counts: Inputs by reader and outcome: "read" or "refused".
        num_kept: Inputs that reached a line that none before had.
        problems: What came out that may not.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    num_kept: int = 0
    problems: list[str] = field(default_factory=list)


def fuzz_readers(*, seconds: float, seed: int, max_inputs: int | None = None) -> Found:
    """Send inputs to all readers in turn until the time is over, or so many are sent."""
    found, draw, end_s = Found(), random.Random(seed), time.monotonic() + seconds
    with TemporaryDirectory(prefix="nanosft-fuzz-") as folder, replying() as of_replies:
        readers = make_readers(Path(folder) / "inputs") | make_record_readers(Path(folder) / "records")
        readers |= {name: (EXAMPLES[name], read) for name, read in of_replies.items()}
        corpora = {name: Corpus(example) for name, (example, _) in readers.items()}
        number = 0
        while time.monotonic() < end_s and (max_inputs is None or number < max_inputs):
            for name, (_, read) in readers.items():
                corpus = corpora[name]
                data = change(draw.choice(corpus.inputs), draw)
                with corpus.watching(data):
                    _try(name, data, read, found)
                number += 1
    found.num_kept = sum(len(corpus.inputs) - 1 for corpus in corpora.values())
    return found


class Corpus:
    """The inputs that a reader's next ones are made from: its example, and each that reached a new line.

    Lines are counted in the reader's own thread; what its processes and other threads do is not seen.
    """

    def __init__(self, example: bytes) -> None:
        self.inputs = [example]
        self._seen: set[tuple[CodeType, int]] = set()

    @contextmanager
    def watching(self, data: bytes) -> Iterator[None]:
        """Note the lines that are reached in the context, and keep the input where one of them is new."""
        num_seen, before = len(self._seen), sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)
            if len(self._seen) > num_seen and len(data) <= _MAX_KEPT_BYTES:
                self.inputs.append(data)

    def _enter(self, frame: FrameType, _event: str, _argument: object) -> Callable[..., Any] | None:
        """Follow a function, if it is one of nanosft's."""
        return self._step if frame.f_code.co_filename.startswith(_NANOSFT) else None

    def _step(self, frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
        if event == "line":
            self._seen.add((frame.f_code, frame.f_lineno))
        return self._step


def _try(name: str, data: bytes, read: Callable[[bytes], object], found: Found) -> None:
    started_s, outcome = time.monotonic(), "read"
    try:
        read(data)
    except NanosftError as exc:
        outcome = "refused"
        if len(str(exc)) > MAX_MESSAGE_CHARS:
            found.problems.append(f"{name}: a message of {len(str(exc))} characters: {str(exc)[:200]}")
    except BaseException as exc:  # whatever it is: a panic of Rust's is no Exception
        if isinstance(exc, KeyboardInterrupt):
            raise
        found.problems.append(f"{name}: {type(exc).__name__}: {str(exc)[:200]}: of {data[:300]!r}")
    seconds = time.monotonic() - started_s
    if seconds > MAX_SECONDS:
        found.problems.append(f"{name}: took {seconds:.0f} s: {data[:300]!r}")
    found.counts[name, outcome] += 1


def change(example: bytes, draw: random.Random) -> bytes:
    """The example, changed in one to four places."""
    data = bytearray(example)
    for _ in range(draw.randint(1, 4)):
        place, length = draw.randrange(len(data) + 1), draw.choice((1, 1, 2, 8, 64))
        way = draw.randrange(7)
        if way == 0 and data:
            data[place % len(data)] ^= 1 << draw.randrange(8)
        elif way == 1:
            del data[place : place + length]
        elif way == 2:
            data[place:place] = data[place : place + length] * draw.choice((1, 2, 500))
        elif way == 3:
            data[place:place] = bytes(draw.randrange(256) for _ in range(length))
        elif way == 4:
            del data[place:]
        elif way == 5:
            data[place:place] = draw.choice(_PIECES)
        else:
            data = bytearray(_swap_value(bytes(data), draw))
    return bytes(data)


def _swap_value(data: bytes, draw: random.Random) -> bytes:
    """One value of a JSON document replaced by an odd one; the data itself where it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            places.append((item, key))
            waiting.append(item[key])
    if places:
        holder, key = draw.choice(places)
        holder[key] = draw.choice(_ODD)
    return json.dumps(value).encode()


def make_readers(folder: Path) -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """Each reader with an example that it takes."""
    folder.mkdir()
    messages = (Message("user", "How are you?"), Message("assistant", "Well."))
    parts = [{"type": "text", "text": "b"}]
    plain = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": parts}]}
    sharegpt = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "c"}
    alpaca = {"instruction": "a", "input": "b", "output": "c"}
    lines = to_line(Conversation(messages, {"row": 1})) * 3
    item = ManifestObject(key="a.jsonl", size_bytes=1, sha256="0" * 64, num_rows=1)
    manifest = Manifest(kind="mixture", name="m", objects=(item,), counts={"rows": 1}).to_bytes()
    answer = {
        "choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}],
        "usage": {"cost": 0.1},
        "model": "m",
    }
    recipe = b'total_rows = 9\n[[sources]]\nname = "a"\nuri = "a.jsonl"\nratio = 1.0\n[split]\nval_share = 0.1\n'
    run = b'name = "a"\nstore = "s3://b"\n[generate]\nnum = 3\n[train]\nseed = 1\n'
    file = io.BytesIO()
    torch.save({"w": torch.zeros(3, 2)}, file)

    def read_objects(name: str) -> Callable[[bytes], object]:
        def read(data: bytes) -> None:
            (folder / name).write_bytes(data)
            for found in list_data_objects(str(folder / name)):
                for number, line in iter_lines(found):
                    parse_line(line, where=found.place(number))

        return read

    def read_toml(data: bytes) -> None:
        (folder / "dimensions.toml").write_bytes(data)
        read_dimensions(str(folder / "dimensions.toml"))

    return {
        "canonical": (lines[: len(lines) // 3], lambda data: parse_line(data, where="a.jsonl:line 1")),
        "messages": (orjson.dumps(plain), lambda data: parse_line(data, where="a.jsonl:line 1")),
        "sharegpt": (orjson.dumps(sharegpt), lambda data: parse_line(data, where="a.jsonl:line 1")),
        "alpaca": (orjson.dumps(alpaca), lambda data: parse_line(data, where="a.jsonl:line 1")),
        "jsonl": (lines, read_objects("a.jsonl")),
        "gzip": (gzip.compress(lines), read_objects("a.jsonl.gz")),
        "zstd": (zstandard.compress(lines), read_objects("a.jsonl.zst")),
        "parquet": (_make_parquet(folder), read_objects("a.parquet")),
        "manifest": (manifest, lambda data: parse_manifest(data, where="manifest.json")),
        "recipe": (recipe, lambda data: parse_recipe(data, where="recipe.toml")),
        "run file": (run, lambda data: parse_run(data.decode(errors="replace"), where="run.toml")),
        "dimensions": (
            (GOLDEN / "begun/dimensions.toml").read_bytes(),
            read_toml,
        ),
        "tokenizer": (
            (GOLDEN / "begun/base/tokenizer/tokenizer.pkl").read_bytes(),
            lambda data: parse_tokenizer(data, where="tokenizer.pkl"),
        ),
        "pickle": (pickle.dumps({"a": [1, "b"]}), lambda data: parse_tokenizer(data, where="tokenizer.pkl")),
        "tensors": (file.getvalue(), lambda data: load_torch(io.BytesIO(data), "model.pt")),
        "answer": (orjson.dumps(answer), lambda data: parse_answer(data, model="m")),
    }


def _make_parquet(folder: Path) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - as above: few need it
    import pyarrow.parquet as pq  # noqa: PLC0415

    row = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pq.write_table(pa.table({"messages": [row, row]}), folder / "example.parquet")
    return (folder / "example.parquet").read_bytes()
