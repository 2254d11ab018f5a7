"""One meaning of a URI: each form of it gives every command the same conversations."""

import gzip
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from nanosft.audit.inspection import run_inspect
from nanosft.audit.stage import run_audit
from nanosft.conversation import parse_line
from nanosft.data import ShardWriter, find_inputs, list_data_objects, put_manifest, read_batches, read_conversations
from nanosft.errors import DataError
from nanosft.manifest import Manifest
from nanosft.mix.stage import make_mixture
from nanosft.settings.audit import AuditSettings, InspectSettings
from nanosft.settings.mix import MixSettings
from nanosft.store import open_store
from nanosft.train.data.dataset import split_objects
from nanosft.train.data.tokens import read_lines

TALKS = [
    [{"role": "user", "content": f"How much is {n}?"}, {"role": "assistant", "content": f"It is {n}, no less."}]
    for n in ("one", "two", "three")
]
LINES = [orjson.dumps({"messages": talk}) for talk in TALKS]
TEXT = b"\n".join(LINES) + b"\n"


def write_manifest(root: Path) -> None:
    store = open_store(str(root))
    with ShardWriter(store, "part.jsonl") as writer:
        for line in LINES:
            writer.write(parse_line(line, where="line"))
    (root / "stray.jsonl").write_bytes(b"no conversation")
    put_manifest(store, Manifest(kind="mixture", name="talks", objects=(writer.object,)))


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"messages": talk} for talk in TALKS]), path)


FORMS = {
    "file": ("a.jsonl", lambda root: (root / "a.jsonl").write_bytes(TEXT)),
    "gzip": ("a.jsonl.gz", lambda root: (root / "a.jsonl.gz").write_bytes(gzip.compress(TEXT))),
    "zstandard": ("a.jsonl.zst", lambda root: (root / "a.jsonl.zst").write_bytes(zstandard.compress(TEXT))),
    "parquet": ("a.parquet", lambda root: write_parquet(root / "a.parquet")),
    "prefix": ("", lambda root: (root / "a.jsonl").write_bytes(TEXT)),
    "prefix of parquet": ("", lambda root: write_parquet(root / "a.parquet")),
    "manifest": ("", write_manifest),
    "pattern": ("?.jsonl", lambda root: (root / "a.jsonl").write_bytes(TEXT)),
    "pattern of parquet": ("*.parquet", lambda root: write_parquet(root / "a.parquet")),
    "pattern of folders": ("**.gz", lambda root: (root / "deep/a.jsonl.gz").write_bytes(gzip.compress(TEXT))),
}


def read_in_mix(uri: str) -> list[str]:
    return [
        line.decode()
        for item in find_inputs([uri]).objects
        for batch in read_batches(item, source=0)
        for _, line in batch.iter_lines()
    ]


@pytest.fixture(params=FORMS)
def uri(request, tmp_path):
    name, write = FORMS[request.param]
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write(tmp_path / "in")
    return f"{tmp_path}/in/{name}".rstrip("/")


def test_each_form_is_the_same_set_for_every_command(uri, tmp_path, capsys):
    assert [[m.text for m in row.messages] for row in read_conversations(uri)] == [
        [message["content"] for message in talk] for talk in TALKS
    ]
    assert len(read_in_mix(uri)) == len(TALKS)
    train, val = split_objects(uri, None)
    places = [where.rpartition("/")[2].partition(":")[2] for where, _ in read_lines(train)]
    assert places == [f"{train[0].unit} {number}" for number in (1, 2, 3)]
    assert not val
    assert run_audit(AuditSettings(uri=uri, out=str(tmp_path / "audited"), json_output=True)).num_rows == len(TALKS)
    capsys.readouterr()
    run_inspect(InspectSettings(uri=uri, json_output=True))
    assert orjson.loads(capsys.readouterr().out)["rows"] == len(TALKS)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[[sources]]\nname = "talks"\nuri = "{uri}"\n[split]\nval_share = 0.0\n')
    report = make_mixture(MixSettings(recipe=str(recipe), out=str(tmp_path / "mixture"), workers=1))
    assert report is not None
    assert report.sources[0].num_rows == len(TALKS)


@pytest.mark.parametrize("name", ["*.jsonl", "?", "**/x.parquet"])
def test_a_pattern_that_matches_nothing_is_an_error_that_says_so(tmp_path, name):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(TEXT))
    with pytest.raises(DataError, match="no object matches"):
        list_data_objects(f"{tmp_path}/{name}")


@pytest.mark.parametrize("stars", ["*" * 60, "*a" * 60, "**a*" * 30])
def test_a_pattern_of_sixty_stars_is_looked_through_once(tmp_path: Path, stars: str):
    (tmp_path / f"{'a' * 200}.jsonl").write_bytes(b"{}")
    with pytest.raises(DataError, match="no object matches"):
        list_data_objects(f"{tmp_path}/{stars}x.jsonl")
    assert len(list_data_objects(f"{tmp_path}/{stars}.jsonl")) == 1


def test_stars_stop_at_a_slash_and_double_stars_do_not(tmp_path: Path):
    for name in ("a/bc/x.jsonl", "a/b/c/x.jsonl", "x.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")

    def keys(pattern: str) -> list[str]:
        return [item.key for item in list_data_objects(f"{tmp_path}/{pattern}")]

    assert [len(keys(pattern)) for pattern in ("a/*/x.jsonl", "**x.jsonl", "*.jsonl", "a/b*/*?.jsonl")] == [1, 3, 1, 1]
    assert len(keys("**b**c*/?.jsonl")) == 2
