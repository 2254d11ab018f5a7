"""The mixture of three real sources, 30 % of it synthetic by supervised tokens, is the one that was reviewed."""

import json
from pathlib import Path

import pytest

from nanosft.data import read_manifest
from nanosft.mix.stage import make_mixture
from nanosft.settings.mix import MixSettings
from nanosft.store import open_store
from tests.real_sets import REAL_RECIPE, read_chatterbot, read_chitchat, write_jsonl

GOLDEN = Path(__file__).parents[2] / "golden/mix/real.json"


@pytest.mark.parametrize(("workers", "memory_limit"), [(1, 256), (2, 1024)])
def test_the_real_mixture_is_the_reviewed_one(tmp_path: Path, shared: Path, workers: int, memory_limit: int):
    write_jsonl(tmp_path / "chitchat.jsonl", read_chitchat())
    write_jsonl(tmp_path / "chatterbot.jsonl", read_chatterbot())
    recipe = tmp_path / "real.toml"
    recipe.write_text(REAL_RECIPE.format(shared=shared, folder=tmp_path))
    out, work_dir = str(tmp_path / "out"), str(tmp_path / "work")
    make_mixture(
        MixSettings(recipe=str(recipe), out=out, work_dir=work_dir, workers=workers, memory_limit=memory_limit)
    )
    manifest = read_manifest(open_store(out))
    assert manifest is not None
    golden = json.loads(GOLDEN.read_text())
    assert {item.key: item.sha256 for item in manifest.objects} == golden["objects"]
    assert manifest.counts == golden["counts"]
