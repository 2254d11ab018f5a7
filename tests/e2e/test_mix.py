"""`nanosft mix` as a process: killed, terminated, run again."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanosft.data import read_conversations, read_manifest
from nanosft.errors import DataError
from nanosft.store import open_store
from tests.real_sets import read_chatterbot, read_chitchat, write_jsonl

DEADLINE_S = 120


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mix")
    write_jsonl(folder / "chitchat.jsonl", read_chitchat())
    write_jsonl(folder / "chatterbot.jsonl", read_chatterbot())
    text = "\n".join(
        f'[[sources]]\nname = "{name}"\nuri = "{folder}/{name}.jsonl"' for name in ("chitchat", "chatterbot")
    )
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def start(recipe: Path, folder: Path, out: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nanosft", "mix", "--recipe", str(recipe), "--out", str(folder / out)]
    command += ["--work-dir", str(folder / "work"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def hash_objects(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.json*"))}


def wait_for_rows(folder: Path) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not any(path.stat().st_size for path in (folder / "work").glob("*/rows-*")):
        assert time.monotonic() < deadline_s, "no row was spilled"
        time.sleep(0.005)


def test_a_killed_run_leaves_no_manifest_and_the_next_one_cleans_up(recipe: Path, tmp_path: Path):
    with start(recipe, tmp_path, "whole", "--workers", "1") as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    with start(recipe, tmp_path, "out", "--workers", "2") as process:
        wait_for_rows(tmp_path)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert read_manifest(open_store(str(tmp_path / "out"))) is None
    assert list((tmp_path / "work").glob("*/rows-*"))
    with start(recipe, tmp_path, "out", "--workers", "2") as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "overlap with train: 0 texts, 0 near-duplicate clusters, 0 plan cells" in " ".join(output.split())
    assert hash_objects(tmp_path / "out") == hash_objects(tmp_path / "whole")
    assert not list((tmp_path / "work").glob("*/*"))


def test_a_run_killed_while_it_writes_is_not_read_and_the_next_one_cleans_up(recipe: Path, tmp_path: Path):
    sharded = tmp_path / "sharded.toml"
    sharded.write_text('shard_rows = 20\ncompression = "gz"\n' + recipe.read_text())
    with start(sharded, tmp_path, "out", "--workers", "2") as process:
        deadline_s = time.monotonic() + DEADLINE_S
        while len(list((tmp_path / "out").glob("train-*"))) < 3:
            assert time.monotonic() < deadline_s, "no object was written"
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert read_manifest(open_store(str(tmp_path / "out"))) is None
    with pytest.raises(DataError, match="unfinished"):
        list(read_conversations(str(tmp_path / "out")))
    with start(sharded, tmp_path, "out", "--workers", "1") as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    manifest = read_manifest(open_store(str(tmp_path / "out")))
    assert manifest is not None
    there = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert there == {"manifest.json", *(item.key for item in manifest.objects)}


def test_a_terminated_run_ends_with_143_and_leaves_nothing(recipe: Path, tmp_path: Path):
    with start(recipe, tmp_path, "out", "--workers", "2") as process:
        wait_for_rows(tmp_path)
        process.terminate()
        _, errors = process.communicate()
    assert process.returncode == 143, errors
    assert not list((tmp_path / "work").glob("*/*"))
    assert read_manifest(open_store(str(tmp_path / "out"))) is None


def test_a_wrong_recipe_is_one_line_and_exit_code_2(recipe: Path, tmp_path: Path):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(recipe.read_text().replace("uri", "url", 1))
    with start(wrong, tmp_path, "out") as process:
        _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "sources[0].url: is no key of a recipe" in errors
