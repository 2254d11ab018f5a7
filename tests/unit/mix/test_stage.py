"""The whole stage on small sets."""

import decimal
import gzip
import hashlib
import io
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from rich.console import Console

from nanosft.data import OutputPrefix, lines, read_conversations, read_manifest, sources
from nanosft.errors import ConfigError, DataError
from nanosft.mix import stage
from nanosft.mix.columns import TYPES
from nanosft.mix.disk import plan_direct
from nanosft.mix.reading import RowBatch
from nanosft.mix.report import Report
from nanosft.mix.selecting import Ledger
from nanosft.mix.stage import make_mixture
from nanosft.mix.tables import describe, make_funnel_table
from nanosft.mix.tuning import Tuning
from nanosft.progress import Bar
from nanosft.settings.mix import MixSettings
from nanosft.store import open_store

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "l", "")]


def talk(seed: int, *, num_turns: int = 2, num_words: int = 30) -> list[dict[str, str]]:
    rng = random.Random(seed)
    roles = ("user", "assistant") * num_turns
    return [{"role": role, "content": " ".join(rng.choices(WORDS, k=num_words)).capitalize() + "."} for role in roles]


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    return path


def read(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


Mix = Callable[..., Report | None]


@pytest.fixture
def mix(tmp_path: Path) -> Mix:
    def run(
        recipe: str, out: str | Path | None = "out", tuning: Tuning | None = None, **settings: Any
    ) -> Report | None:
        path = tmp_path / "recipe.toml"
        path.write_text(recipe.replace("DATA", str(tmp_path)))
        target = None if out is None else str(tmp_path / out)
        work_dir = str(tmp_path / "work")
        return make_mixture(MixSettings(recipe=str(path), out=target, work_dir=work_dir, **settings), tuning)

    return run


def hash_objects(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.is_file()
    }


TWO = """
synthetic_share = 0.25
[[sources]]
name = "a"
uri = "DATA/a.jsonl"
synthetic = true
[[sources]]
name = "b"
uri = "DATA/b.jsonl"
"""


def test_shares_split_order_and_lineage(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(200)))
    write(tmp_path / "b.jsonl", map(talk, range(1000, 1400)))
    report = mix(TWO)
    assert report is not None
    assert report.synthetic_achieved == pytest.approx(0.25, abs=1 / report.num_rows)
    assert report.overlap == {"texts": 0, "cells": 0, "clusters": 0}
    assert [source.funnel.num_val for source in report.sources] == [4, 8]
    manifest = read_manifest(open_store(str(tmp_path / "out")))
    assert manifest is not None
    assert [item.key for item in manifest.objects] == ["train-00000.jsonl", "val-00000.jsonl"]
    assert {parent.uri.rpartition("/")[2]: parent.sha256 for parent in manifest.parents} == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.jsonl", "b.jsonl")
    }
    rows = list(read_conversations(str(tmp_path / "out")))
    assert len(rows) == manifest.num_rows == report.num_rows + report.num_val
    sources = [row.meta["source"] for row in rows]
    assert sources.count("a") > 90
    assert "a" in sources[:20]
    assert "b" in sources[:20]


def test_the_bytes_depend_on_neither_workers_nor_memory_nor_listing(mix: Mix, tmp_path: Path, monkeypatch):
    rows = [talk(seed % 900, num_words=5 + seed % 40) for seed in range(1200)]
    write(tmp_path / "a.jsonl", rows[:400])
    for part in range(4):
        write(tmp_path / f"b/part-{part}.jsonl", rows[400 + part * 200 : 600 + part * 200])
    recipe = TWO.replace("DATA/b.jsonl", "DATA/b") + "\n[split]\nval_share = 0.05\n"
    recipe = recipe.replace("synthetic_share = 0.25", "synthetic_share = 0.6\ntotal_rows = 1500\nshard_rows = 400")
    mix(recipe, "one", workers=1)
    mix(
        recipe.replace('"DATA/b"', '["DATA/b/part-2.jsonl", "DATA/b/part-[013].jsonl"]').replace("[013]", "?"),
        "two",
        workers=2,
    )
    small = Tuning(
        database_bytes=64 << 20,
        database_threads=1,
        segment_bytes=10_000,
        cacheable_bytes=0,
        insert_rows=100,
        fetch_rows=64,
        spilled_keys=700,
        slice_bytes=1000,
        chunk_keys=16,
        chunk_pairs=8,
    )
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 2_000)
    monkeypatch.setattr(sources, "BATCH_BYTES", 5_000)
    mix(recipe, "three", small, workers=1, memory_limit=256)
    mix(recipe, "four", small, workers=2, memory_limit=256)  # a process writes its lines over those of another batch
    one, two, three, four = (hash_objects(tmp_path / name) for name in ("one", "two", "three", "four"))
    assert len(one) == 4 + 1 + 1
    assert one == three == four
    del one["manifest.json"], two["manifest.json"]  # it names other URIs
    assert one == two


def test_the_order_is_that_of_the_documented_hash(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(40)))
    mix('seed = 7\n[[sources]]\nname = "a"\nuri = "DATA/a.jsonl"\nepochs = 2\n[split]\nval_share = 0.0')
    ids = [row["id"] for row in read(tmp_path / "out/train-00000.jsonl")]

    def place(row_id: str, copy: int) -> int:
        name = f"place/7/{int(row_id[:16], 16)}/{int(row_id[16:32], 16)}/0/{copy}"
        return int.from_bytes(hashlib.md5(name.encode()).digest()[:8], "little")

    expected = sorted((place(row_id, copy), row_id) for row_id in set(ids) for copy in (0, 1))
    assert ids == [row_id for _, row_id in expected]


def test_planted_duplicates_are_all_found(mix: Mix, tmp_path: Path):
    clean = [talk(seed) for seed in range(300)]
    planted = []
    for row in clean[:40]:
        shouted = [{**item, "content": item["content"].upper().replace(".", " !!")} for item in row]
        words = row[1]["content"].split(" ")
        one_word = [row[0], {**row[1], "content": " ".join([*words[:9], "zzz", *words[10:]])}, *row[2:]]
        planted += [row, shouted, one_word]
    write(tmp_path / "a.jsonl", clean)
    write(tmp_path / "b.jsonl", [*planted, talk(9999)])
    report = mix(TWO.replace("synthetic_share = 0.25\n", "").replace("synthetic = true\n", ""))
    assert report is not None
    assert [source.funnel.num_exact + source.funnel.num_near for source in report.sources] == [0, 120]
    assert report.sources[1].funnel.num_exact == 80


def test_priority_decides_whose_row_is_kept(mix: Mix, tmp_path: Path):
    rows = [talk(seed) for seed in range(50)]
    write(tmp_path / "a.jsonl", rows)
    write(tmp_path / "b.jsonl", [*rows, *map(talk, range(100, 150))])
    recipe = TWO.replace("synthetic_share = 0.25\n", "").replace("synthetic = true\n", "")
    report = mix(recipe + '[deduplicate]\npriority = ["b"]', None, dry_run=True)
    assert report is not None
    assert [source.funnel.num_exact for source in report.sources] == [50, 0]
    assert "a adds no row" in report.warnings


def test_near_duplicates_between_sources_stay_on_one_side_where_they_stay(mix: Mix, tmp_path: Path):
    rows = [talk(seed) for seed in range(200)]
    changed = [[{**row[0], "content": row[0]["content"] + " indeed"}, *row[1:]] for row in rows]
    write(tmp_path / "a.jsonl", rows)
    write(tmp_path / "b.jsonl", changed)
    recipe = TWO.replace("synthetic_share = 0.25\n", "").replace("synthetic = true\n", "")
    for setting in ("across = false", 'near = "group"'):
        report = mix(f"{recipe}\n[split]\nval_share = 0.2\n[deduplicate]\n{setting}", None, dry_run=True)
        assert report is not None
        assert report.overlap["clusters"] == 0
        assert sum(source.funnel.num_near for source in report.sources) == 0
        assert 40 <= report.num_val <= 120


def test_rows_of_one_cell_stay_on_one_side(mix: Mix, tmp_path: Path):
    rows = [{"messages": talk(seed), "meta": {"cell": ["topic", seed % 20]}} for seed in range(400)]
    write(tmp_path / "a.jsonl", rows)
    mix('[[sources]]\nname = "a"\nuri = "DATA/a.jsonl"\nepochs = 3\n[split]\nval_share = 0.2')
    cells = {
        part: {row["meta"]["cell"][1] for row in read(tmp_path / f"out/{part}-00000.jsonl")}
        for part in ("train", "val")
    }
    assert len(cells["val"]) == 4
    assert not cells["val"] & cells["train"]


def test_held_out_rows_are_found_whole_or_in_part(mix: Mix, tmp_path: Path):
    held = [talk(seed) for seed in range(30)]
    write(tmp_path / "held.jsonl", held)
    hidden = [[*talk(500 + i, num_turns=1), *row] for i, row in enumerate(held[:10])] + [row[:2] for row in held[10:20]]
    write(tmp_path / "a.jsonl", [*map(talk, range(1000, 1200)), *hidden, *held[20:]])
    report = mix('[[sources]]\nname = "a"\nuri = "DATA/a.jsonl"\n[decontaminate]\nuri = "DATA/held.jsonl"')
    assert report is not None
    assert report.sources[0].funnel.num_contaminated == 30


def test_token_shares_are_met_to_less_than_a_row(mix: Mix, tmp_path: Path, shared: Path):
    write(tmp_path / "a.jsonl", [talk(seed, num_words=5 + seed % 60) for seed in range(300)])
    write(tmp_path / "b.jsonl", [talk(1000 + seed, num_words=5 + seed % 90) for seed in range(500)])
    head = f'by = "supervised_tokens"\ntokenizer = "{shared}/nanochat_base"\n'
    report = mix(head + TWO)
    assert report is not None
    assert abs(report.synthetic_achieved - 0.25) < 0.0005
    assert sum(source.num_supervised for source in report.sources) == report.amount


def test_every_kind_of_input_and_output_is_read_again(mix: Mix, tmp_path: Path):
    lines = [
        b"".join(orjson.dumps(talk(i), option=orjson.OPT_APPEND_NEWLINE) for i in range(j, j + 50)) for j in (0, 50)
    ]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines[0]))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines[1]))
    pq.write_table(pa.Table.from_pylist([{"dialog": talk(i)} for i in range(100, 150)]), tmp_path / "c.parquet")
    recipe = 'output = "list"\ncompression = "COMPRESSION"\n[[sources]]\nname = "x"\nuri = "DATA/*.jsonl.*"\n'
    recipe += '[[sources]]\nname = "y"\nuri = "DATA/c.parquet"\nfields = {messages = "dialog"}\n'
    found = set()
    for compression in ("none", "gz", "zst"):
        mix(recipe.replace("COMPRESSION", compression), compression)
        found.add(tuple(row.id for row in read_conversations(str(tmp_path / compression))))
    assert len(found) == 1
    assert len(found.pop()) == 150


BAD = '[[sources]]\nname = "a"\nuri = "DATA/a.jsonl"'


def test_a_bad_line_is_named_with_its_remedy(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", [talk(1), [{"role": "assistant", "content": "x"}], talk(2)])
    with pytest.raises(DataError, match=r"a\.jsonl:line 2: .*; mend the line, or .*--on-bad-row skip"):
        mix(BAD)
    assert not (tmp_path / "out/manifest.json").exists()
    assert not list((tmp_path / "work").glob("nanosft-mix-*[0-9a-f]"))


def test_bad_lines_can_be_skipped_up_to_a_share(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", [*map(talk, range(50)), {"no": 1}])
    report = mix(BAD, on_bad_row="skip", max_bad_share=0.05)
    assert report is not None
    assert report.sources[0].funnel.num_bad == 1
    (refused,) = read(tmp_path / "out/refused/a.jsonl")
    assert "a.jsonl:line 51" in refused["error"]
    assert refused["line"] == '{"no":1}'
    with pytest.raises(DataError, match=r"1 of 51 lines are bad, more than --max-bad-share 0\.01"):
        mix(BAD, "other", on_bad_row="skip", max_bad_share=0.01)


def test_an_empty_or_missing_source_is_named(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", [])
    with pytest.raises(DataError, match="source 'a' is empty"):
        mix(BAD)
    with pytest.raises(DataError, match=r"none\.jsonl"):
        mix(BAD.replace("a.jsonl", "none.jsonl"))
    with pytest.raises(DataError, match="no object matches"):
        mix(BAD.replace("a.jsonl", "none*.jsonl"))


def test_a_finished_output_is_left_alone_or_refused(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(50)))
    assert mix(BAD) is not None
    before = hash_objects(tmp_path / "out")
    (tmp_path / "a.jsonl").unlink()
    assert mix(BAD) is None
    assert hash_objects(tmp_path / "out") == before
    with pytest.raises(ConfigError, match="made with seed=0, now seed=1"):
        mix("seed = 1\n" + BAD)


def test_what_a_killed_run_left_is_cleaned_up(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(50)))
    write(tmp_path / "out/train-00007.jsonl", [1])
    mix(BAD)
    assert sorted(hash_objects(tmp_path / "out")) == ["manifest.json", "train-00000.jsonl", "val-00000.jsonl"]
    assert len(list(read_conversations(str(tmp_path / "out")))) == 50


def test_a_dry_run_writes_nothing(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(50)))
    report = mix(BAD, None, dry_run=True)
    assert report is not None
    assert report.num_rows == 49
    assert not (tmp_path / "out").exists()


def test_filters_count_by_name(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", [talk(1), talk(2, num_turns=5), talk(3, num_words=500), *map(talk, range(10, 60))])
    report = mix(BAD + "\nfilter.max_turns = 4\n[filter]\nmax_chars = 5000")
    assert report is not None
    assert report.sources[0].funnel.filtered == {"max_turns": 1, "max_chars": 1}


def test_repeats_beyond_the_limit_are_warned_of(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(20)))
    report = mix(BAD + "\nepochs = 5.5\n[split]\nval_share = 0.0")
    assert report is not None
    assert report.num_rows == 110
    assert report.warnings == ("a is repeated 5.5 times, more than warn_epochs = 4",)


def test_the_output_is_cut_into_objects_by_part_and_rows():
    sizes = [7, 3, 5]
    table = {"part": [0, 0, 1], "batch": [2, 1, 2], "start": [0, 0, 7], "size": sizes}
    chunk = {name: np.array(column, TYPES[name]) for name, column in table.items()}
    assert [(part, index, list(batches)) for part, index, batches, *_ in plan_direct([chunk], 1)] == [
        (0, 0, [2]),
        (0, 1, [1]),
        (1, 0, [2]),
    ]


def test_sources_and_output_in_a_bucket(tmp_path: Path, moto_url: str, make_bucket: Callable[[str], str]):
    bucket = make_bucket(moto_url)
    path = write(tmp_path / "a.jsonl", map(talk, range(60)))
    open_store(bucket).write("in/a.jsonl", path.read_bytes())
    for name, uri in (("s3", f"{bucket}/in/*.jsonl"), ("local", str(path))):
        recipe = tmp_path / f"{name}.toml"
        recipe.write_text(BAD.replace("DATA/a.jsonl", uri))
        out = f"{bucket}/out" if name == "s3" else str(tmp_path / "out")
        assert make_mixture(MixSettings(recipe=str(recipe), out=out, work_dir=str(tmp_path / "work"))) is not None
    remote, local = (read_manifest(open_store(uri)) for uri in (f"{bucket}/out", str(tmp_path / "out")))
    assert remote is not None
    assert local is not None
    assert remote.objects == local.objects


def test_gates_of_audit_filter_rows(mix: Mix, tmp_path: Path):
    cut_off = talk(1)
    cut_off[3]["content"] = "This answer, as long as it is, was cut off in the middle of a sen"
    write(tmp_path / "a.jsonl", [*map(talk, range(10, 40)), cut_off, [*talk(2), {"role": "user", "content": "And?"}]])
    report = mix(BAD + '\n[filter]\ngates = ["structure"]', None, dry_run=True)
    assert report is not None
    assert sum(report.sources[0].funnel.filtered.values()) == 1
    (name,) = report.sources[0].funnel.filtered
    assert name.startswith("structure/")


def test_a_source_that_has_changed_since_is_no_finished_mixture(mix: Mix, tmp_path: Path):
    write(tmp_path / "raw.jsonl", map(talk, range(60)))
    recipe = '[[sources]]\nname = "a"\nuri = "DATA/NAME"'
    mix(recipe.replace("NAME", "raw.jsonl"), "made")
    assert mix(recipe.replace("NAME", "made")) is not None
    assert mix(recipe.replace("NAME", "made")) is None
    write(tmp_path / "raw.jsonl", map(talk, range(70)))
    (tmp_path / "made/manifest.json").unlink()
    mix(recipe.replace("NAME", "raw.jsonl"), "made")
    with pytest.raises(ConfigError, match=r"made: has changed since .*out was finished"):
        mix(recipe.replace("NAME", "made"))


def test_the_output_may_not_hold_a_source(mix: Mix, tmp_path: Path):
    path = write(tmp_path / "set/train-data.jsonl", map(talk, range(50)))
    with pytest.raises(ConfigError, match=r"train-data\.jsonl: lies under --out .*: choose another --out"):
        mix(BAD.replace("a.jsonl", "set/"), "set")
    with pytest.raises(ConfigError, match="choose another --out"):
        mix(BAD.replace("a.jsonl", "set/"), "link/../set")
    held = '\n[decontaminate]\nuri = "DATA/set/train-data.jsonl"'
    write(tmp_path / "a.jsonl", map(talk, range(50)))
    with pytest.raises(ConfigError, match="choose another --out"):
        mix(BAD + held, "set")
    assert len(read(path)) == 50


def test_only_objects_of_a_mixture_are_cleaned_up(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(50)))
    foreign = ["train-00000-of-00001.parquet", "val-mine.jsonl", "train-extra/notes.txt", "refused/other.jsonl"]
    for name in foreign:
        write(tmp_path / "out" / name, [1])
    for name in ("train-00007.jsonl", "val-00001.jsonl.zst", "refused/a.jsonl", ".nanosft-tmp-0123"):
        write(tmp_path / "out" / name, [1])
    mix(BAD)
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there == {*foreign, "manifest.json", "train-00000.jsonl", "val-00000.jsonl"}


def test_a_half_written_mixture_is_not_read(mix: Mix, tmp_path: Path, monkeypatch):
    write(tmp_path / "a.jsonl", map(talk, range(50)))
    monkeypatch.setattr(OutputPrefix, "commit", lambda *_, **__: pytest.fail("killed here"))
    with pytest.raises(pytest.fail.Exception):
        mix(BAD)
    assert (tmp_path / "out/train-00000.jsonl").exists()
    with pytest.raises(DataError, match="unfinished"):
        list(read_conversations(str(tmp_path / "out")))
    monkeypatch.undo()
    mix(BAD)
    assert len(list(read_conversations(str(tmp_path / "out")))) == 50


def test_a_message_without_a_word_does_not_hide_the_rest_of_its_row(mix: Mix, tmp_path: Path):
    sign = [{"role": "user", "content": "\U0001f44d"}, {"role": "assistant", "content": "?!"}]
    held = [talk(seed) for seed in range(10)]
    write(tmp_path / "held.jsonl", held)
    shouted = [[{**item, "content": item["content"].upper()} for item in [*talk(100 + i), *sign]] for i in range(10)]
    rows = [[*row, *sign] for row in held] + [[*talk(100 + i), *sign] for i in range(10)] + shouted
    write(tmp_path / "a.jsonl", [*rows, *map(talk, range(200, 260))])
    report = mix(BAD + '\n[decontaminate]\nuri = "DATA/held.jsonl"')
    assert report is not None
    assert (report.sources[0].funnel.num_exact, report.sources[0].funnel.num_contaminated) == (10, 10)


def test_held_out_sets_are_read_like_sources_and_are_parents(mix: Mix, tmp_path: Path):
    held = [talk(seed) for seed in range(20)]
    pq.write_table(pa.Table.from_pylist([{"messages": row} for row in held[:10]]), tmp_path / "held-1.parquet")
    write(tmp_path / "held-2.jsonl", held[10:])
    write(tmp_path / "a.jsonl", [*held, *map(talk, range(100, 150))])
    report = mix(BAD + '\n[decontaminate]\nuri = "DATA/held-*"')
    assert report is not None
    assert report.sources[0].funnel.num_contaminated == 20
    manifest = read_manifest(open_store(str(tmp_path / "out")))
    assert manifest is not None
    assert [parent.uri.rpartition("/")[2] for parent in manifest.parents] == [
        "a.jsonl",
        "held-1.parquet",
        "held-2.jsonl",
    ]
    write(tmp_path / "held-2.jsonl", [])
    with pytest.raises(DataError, match=r"decontaminate\.uri: .*held-2\.jsonl holds no conversations"):
        mix(BAD + '\n[decontaminate]\nuri = "DATA/held-2.jsonl"', None, dry_run=True)


def test_a_prefix_of_both_kinds_is_read_whole(mix: Mix, tmp_path: Path):
    write(tmp_path / "set/a.jsonl", map(talk, range(30)))
    pq.write_table(pa.Table.from_pylist([{"messages": talk(i)} for i in range(30, 50)]), tmp_path / "set/b.parquet")
    report = mix('[[sources]]\nname = "a"\nuri = "DATA/set"', None, dry_run=True)
    assert report is not None
    assert report.sources[0].funnel.num_lines == 50


def test_the_tokens_gate_refuses_what_does_not_end_in_an_answer(mix: Mix, tmp_path: Path, shared: Path):
    write(tmp_path / "a.jsonl", [*map(talk, range(30)), [*talk(99), {"role": "user", "content": "And?"}]])
    gate = BAD + '\nfilter.gates = ["tokens"]'
    report = mix(f'tokenizer = "{shared}/nanochat_base"\n{gate}', None, dry_run=True)
    assert report is not None
    assert report.sources[0].funnel.filtered == {"tokens/no_assistant_end": 1}
    with pytest.raises(ConfigError, match=r"sources\[0\]\.filter\.gates: 'tokens' needs 'tokenizer'"):
        mix(gate, None, dry_run=True)


def test_without_across_no_row_is_dropped_for_one_of_another_source(mix: Mix, tmp_path: Path):
    def ask(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]

    words = "alpha beta gamma delta epsilon zeta eta theta"
    first = [ask(words), ask(words.replace("gamma", "one").replace("eta theta", "two theta"))]  # two words apart
    write(tmp_path / "a.jsonl", [*first, *map(talk, range(20))])
    write(tmp_path / "b.jsonl", [ask(words.replace("gamma", "one")), *map(talk, range(30, 50))])  # one from each
    recipe = TWO.replace("synthetic_share = 0.25\n", "").replace("synthetic = true\n", "")
    for across, dropped in (("false", [0, 0]), ("true", [1, 1])):
        report = mix(f"{recipe}\n[deduplicate]\nacross = {across}", None, dry_run=True)
        assert report is not None
        assert [source.funnel.num_near for source in report.sources] == dropped


def test_a_group_larger_than_the_validation_part_stays_in_train_and_is_told(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", [{"messages": talk(seed), "meta": {"cell": "one"}} for seed in range(10)])
    report = mix(BAD + "\nval_rows = 6", None, dry_run=True)
    assert report is not None
    assert report.num_val == 0
    assert report.warnings[0].startswith("a has 0 validation rows where 6 were wanted: rows of one plan cell")


def test_overlap_that_was_not_looked_for_is_not_called_zero(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(50)))
    report = mix(BAD + '\n[deduplicate]\nexact = false\nnear = "off"', None, dry_run=True)
    assert report is not None
    assert report.to_counts()["overlap"] == {"cells": 0}
    assert describe(report)[0].endswith("texts not looked for, near-duplicate clusters not looked for, 0 plan cells")


def test_max_epochs_counts_where_sources_have_no_ratio(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(50)))
    for max_epochs, num_rows in ((2, 100), (0.5, 25)):
        report = mix(f"max_epochs = {max_epochs}\n{BAD}\n[split]\nval_share = 0.0", None, dry_run=True)
        assert report is not None
        assert report.num_rows == num_rows


def test_meta_too_deep_to_be_written_is_a_bad_line(mix: Mix, tmp_path: Path):
    deep = b"[" * 300 + b"]" * 300
    path = write(tmp_path / "a.jsonl", map(talk, range(50)))
    path.write_bytes(path.read_bytes() + b'{"messages":%b,"meta":{"x":%b}}\n' % (orjson.dumps(talk(99)), deep))
    with pytest.raises(DataError, match=r"a\.jsonl:line 51: its meta cannot be written"):
        mix(BAD)
    report = mix(BAD, on_bad_row="skip", max_bad_share=0.05)
    assert report is not None
    assert report.sources[0].funnel.num_bad == 1


def test_damaged_parquet_is_named(mix: Mix, tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"messages": talk(i)} for i in range(50)]), path, compression="none")
    data = path.read_bytes()
    path.write_bytes(data[:10] + b"\xaa" * 390 + data[400:])
    with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file of conversations"):
        mix(BAD.replace("jsonl", "parquet"))


def test_a_columns_foreign_type_does_not_keep_a_parquet_from_being_read(mix: Mix, tmp_path: Path):
    rows = [{"messages": talk(i), "hash": b"\x00\xff", "price": decimal.Decimal("1.5")} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    report = mix(BAD.replace("jsonl", "parquet"), None, dry_run=True)
    assert report is not None
    assert report.num_rows == 20


def test_a_file_as_work_directory_is_a_wrong_setting(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", map(talk, range(50)))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(BAD.replace("DATA", str(tmp_path)))
    with pytest.raises(ConfigError, match=r"a\.jsonl: cannot be the work directory: .*: set --work-dir"):
        make_mixture(MixSettings(recipe=str(recipe), out=str(tmp_path / "out"), work_dir=str(path)))


def test_numbers_are_whole_in_tables_where_there_is_no_terminal(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(50)))
    report = mix(BAD, None, dry_run=True)
    assert report is not None
    (source,) = report.sources
    huge = replace(source, funnel=replace(source.funnel, num_lines=4_123_456_789, num_near=1_234_567_890))
    console = Console(width=160, file=io.StringIO())
    console.print(make_funnel_table(replace(report, sources=(huge,))))
    assert isinstance(console.file, io.StringIO)
    assert "4,123,456,789" in console.file.getvalue()
    assert "\u2026" not in console.file.getvalue()


def test_filters_that_refuse_every_row_are_told(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(20)))
    with pytest.raises(ConfigError, match="the mixture is empty: no source has a train row left"):
        mix(BAD + "\nfilter.min_turns = 50", None, dry_run=True)


def test_without_across_duplicates_of_a_source_are_found_behind_one_of_another(mix: Mix, tmp_path: Path):
    def ask(word: str) -> list[dict[str, str]]:
        text = f"alpha beta {word} delta epsilon zeta eta theta"
        return [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]

    write(tmp_path / "a.jsonl", [ask("gamma"), *map(talk, range(20))])
    write(tmp_path / "b.jsonl", [ask("one"), ask("two"), *map(talk, range(30, 50))])
    recipe = TWO.replace("synthetic_share = 0.25\n", "").replace("synthetic = true\n", "")
    report = mix(f"{recipe}\n[deduplicate]\nacross = false", None, dry_run=True)
    assert report is not None
    assert [source.funnel.num_near for source in report.sources] == [0, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_tokenizer_that_is_replaced_meanwhile_is_met_by_no_worker(
    mix: Mix, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
):
    """Each worker read it for itself: some could count a row's tokens by another one than the others."""
    write(tmp_path / "a.jsonl", map(talk, range(20)))
    shutil.copytree(shared / "nanochat_base" / "tokenizer", tmp_path / "base" / "tokenizer")
    read = stage._read_tokenizer

    def read_and_remove(uri: str) -> bytes:
        found = read(uri)
        shutil.rmtree(tmp_path / "base")
        return found

    monkeypatch.setattr(stage, "_read_tokenizer", read_and_remove)
    report = mix(f'tokenizer = "{tmp_path}/base"\n{BAD}', None, dry_run=True, workers=workers)
    assert report is not None


def test_a_wrong_tokenizer_is_named_though_workers_load_it(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(20)))
    with pytest.raises(DataError, match=r"nowhere.*tokenizer"):
        mix(f'tokenizer = "{tmp_path}/nowhere"\n{BAD}', None, dry_run=True, workers=2)


def test_a_file_does_not_bring_the_parquet_beside_it(mix: Mix, tmp_path: Path):
    write(tmp_path / "set/chat.json", map(talk, range(20)))
    pq.write_table(pa.Table.from_pylist([{"messages": talk(i)} for i in range(30, 50)]), tmp_path / "set/b.parquet")
    report = mix(BAD.replace("a.jsonl", "set/chat.json"), None, dry_run=True)
    assert report is not None
    assert report.sources[0].funnel.num_lines == 20


def test_two_sources_may_read_the_same_set(mix: Mix, tmp_path: Path):
    write(tmp_path / "a.jsonl", map(talk, range(40)))
    mix(BAD, "made")
    both = "".join(f'[[sources]]\nname = "{name}"\nuri = "DATA/made"\n' for name in "ab")
    report = mix(both, None, dry_run=True)
    assert report is not None
    assert [source.funnel.num_exact for source in report.sources] == [0, 40]


def test_a_mixture_finished_meanwhile_by_another_process_is_left_alone(mix: Mix, tmp_path: Path, monkeypatch):
    write(tmp_path / "a.jsonl", map(talk, range(40)))
    mix(BAD, "other")

    select_rows = stage.select_rows

    def select_late(*arguments: Any) -> Any:
        selected = select_rows(*arguments)
        (tmp_path / "other").rename(tmp_path / "out")
        return selected

    monkeypatch.setattr(stage, "select_rows", select_late)
    before = hash_objects(tmp_path / "other")
    assert mix(BAD) is None
    assert hash_objects(tmp_path / "out") == before


def test_bad_lines_do_not_wait_in_memory_for_good_ones(mix: Mix, tmp_path: Path, monkeypatch):
    waiting: list[int] = []
    add = Ledger.add

    def add_and_look(self: Ledger, batch: RowBatch) -> None:
        add(self, batch)
        waiting.append(len(self._waiting))

    monkeypatch.setattr(Ledger, "add", add_and_look)
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 256)
    monkeypatch.setattr(sources, "BATCH_BYTES", 100)
    write(tmp_path / "a.jsonl", [*[{"no": "x" * 200}] * 50, *map(talk, range(3))])
    mix(BAD, None, dry_run=True, on_bad_row="skip", max_bad_share=1.0)
    assert len(waiting) > 10
    assert max(waiting) <= 3


def test_a_row_that_says_an_excerpt_twice_is_as_contaminated_as_one_that_says_it_once(mix: Mix, tmp_path: Path):
    held = talk(1, num_words=100)
    excerpt = " ".join(held[1]["content"].split(" ")[:60])
    write(tmp_path / "held.jsonl", [held, talk(2)])
    twice = [{"role": "user", "content": excerpt}, {"role": "assistant", "content": excerpt}]
    write(tmp_path / "a.jsonl", [twice, *map(talk, range(10, 40))])
    report = mix(BAD + '\n[decontaminate]\nuri = "DATA/held.jsonl"', None, dry_run=True)
    assert report is not None
    assert report.sources[0].funnel.num_contaminated == 1


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_reading_tells_how_much_of_how_much_was_read(
    mix: Mix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It said 0 of an unknown number."""
    rows = write(tmp_path / "plain", ({"messages": talk(seed, num_words=900)} for seed in range(250)))
    content = rows.read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    seen: list[tuple[int, int | None]] = []

    class SeenBar(Bar):
        def update(self, done: int, *, total: int | None = None, **fields: Any) -> None:
            super().update(done, total=total, **fields)
            if "rows" in fields:
                seen.append((done, self._total))

    monkeypatch.setattr(stage, "Bar", SeenBar)
    mix(f'[[sources]]\nname = "a"\nuri = "DATA/{name}"\nepochs = 1\n', workers=1)
    num_mib = -(-(tmp_path / name).stat().st_size // (1 << 20))
    assert seen[0][1] == num_mib > 1
    assert seen[-1] == (num_mib, num_mib)
    assert sorted(seen) == seen
