"""Bases are found in every layout that people have them in, and the best checkpoint of a run is taken."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nanosft.errors import ConfigError, DataError
from nanosft.manifest import Manifest, ManifestObject
from nanosft.nanochat import find_checkpoint, load_checkpoint, load_tokenizer
from nanosft.nanochat.layout import find_tokenizer
from nanosft.store import open_store
from tests.unit.nanochat.conftest import GOLDEN

SOURCE = GOLDEN / "g5/base_checkpoints/d4"


def as_directory(root: Path) -> Path:
    """nanochat's directory."""
    return Path(shutil.copytree(GOLDEN / "g5", root))


def as_experiments(root: Path) -> Path:
    """nanochat's directory with an experiment in the coming layout."""
    shutil.copytree(SOURCE, root / "experiments/mine/d4/base")
    shutil.copytree(GOLDEN / "g5/tokenizer", root / "experiments/mine/tokenizer")
    return root


def as_experiment(root: Path) -> Path:
    """The experiment itself."""
    return as_experiments(root) / "experiments/mine"


def as_flat_folder(root: Path) -> Path:
    """A folder as on the Hub."""
    shutil.copytree(SOURCE, root)
    return Path(shutil.copytree(GOLDEN / "g5/tokenizer", root, dirs_exist_ok=True))


LAYOUTS = [as_directory, as_experiments, as_experiment, as_flat_folder]


@pytest.mark.parametrize("lay_out", LAYOUTS)
def test_a_base_is_found_with_its_tokenizer_in_every_layout(lay_out: Callable[[Path], Path], tmp_path: Path) -> None:
    uri = str(lay_out(tmp_path / "base"))
    found = load_checkpoint(uri, "base")
    assert (found.source, found.tag, found.step, found.generation.name) == ("base", "d4", 7, "g5")
    expected = load_checkpoint(str(GOLDEN / "g5"))
    assert all(
        torch.equal(tensor, found.model.state_dict()[key]) for key, tensor in expected.model.state_dict().items()
    )
    assert load_tokenizer(uri).vocab_size == load_tokenizer(found.tokenizer_uri).vocab_size == 741
    with pytest.raises(ConfigError, match="no step 8; there are 7"):
        find_checkpoint(open_store(uri), step=8)


def test_stages_of_an_experiment_are_told_apart(tmp_path: Path) -> None:
    store = open_store(str(as_experiment(tmp_path)))
    for stage in ("mid", "rl", "sft"):
        shutil.copytree(SOURCE, tmp_path / f"experiments/mine/d4/{stage}")
        found = find_checkpoint(store)
        assert found.model_key == f"d4/{stage}/model_000007.pt"
    assert find_checkpoint(store, "base").model_key == "d4/base/model_000007.pt"
    with pytest.raises(ConfigError, match="no tag 'd9'; there are d4"):
        find_checkpoint(store, tag="d9")


def test_of_several_experiments_one_has_to_be_named(tmp_path: Path) -> None:
    as_experiments(tmp_path)
    shutil.copytree(tmp_path / "experiments/mine", tmp_path / "experiments/yours")
    store = open_store(str(tmp_path))
    with pytest.raises(ConfigError, match=r"2 experiments have a base model: name one, .*/mine, .*/yours"):
        find_checkpoint(store)
    with pytest.raises(ConfigError, match="2 experiments have a tokenizer: name one"):
        find_tokenizer(store)
    shutil.rmtree(tmp_path / "experiments/yours/d4")
    assert load_checkpoint(str(tmp_path)).tokenizer_uri.endswith("/experiments/mine")


def test_a_base_without_its_tokenizer_is_told_where_it_was_looked_for(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "base")
    looked = r"looked for tokenizer/tokenizer\.pkl, tokenizer\.pkl, experiments/<name>/tokenizer/tokenizer\.pkl"
    with pytest.raises(DataError, match=looked):
        load_checkpoint(str(tmp_path / "base"))


def finish_run(root: Path, *, best: int, last: int, steps: tuple[int, ...]) -> None:
    """A finished run with checkpoints of some steps, and a manifest that says which is the best."""
    as_directory(root)
    for step in steps:
        for name, suffix in (("model", "pt"), ("meta", "json")):
            target = root / f"chatsft_checkpoints/d4/{name}_{step:06d}.{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SOURCE / f"{name}_000007.{suffix}", target)
    written = [
        open_store(str(root)).write(info.key, (root / info.key).read_bytes()) for info in open_store(str(root)).list()
    ]
    objects = tuple(ManifestObject(key=item.key, size_bytes=item.size_bytes, sha256=item.sha256) for item in written)
    counts = {"best_step": best, "step": last}
    manifest = Manifest(kind="model", name="run", objects=objects, counts=counts)
    (root / "manifest.json").write_bytes(manifest.to_bytes())


def test_the_best_step_of_a_run_is_taken_unless_told_otherwise(tmp_path: Path) -> None:
    finish_run(tmp_path / "run", best=100, last=150, steps=(100, 150))
    store = open_store(str(tmp_path / "run"))
    steps = [find_checkpoint(store).step, *(find_checkpoint(store, step=step).step for step in ("best", "last", 150))]
    assert steps == [100, 100, 150, 150]
    assert find_checkpoint(store, "base").step == 7


def test_a_run_whose_base_was_the_best_gives_its_last_step(tmp_path: Path) -> None:
    finish_run(tmp_path / "run", best=0, last=150, steps=(150,))
    assert find_checkpoint(open_store(str(tmp_path / "run"))).step == 150


@pytest.mark.parametrize(
    "name",
    [
        "chatsft_checkpoints/d4/model_000150.pt",
        "chatsft_checkpoints/d4/meta_000150.json",
        "tokenizer/tokenizer.pkl",
    ],
)
def test_damaged_bytes_are_refused_where_a_manifest_has_their_hash(tmp_path: Path, name: str) -> None:
    finish_run(tmp_path / "run", best=150, last=150, steps=(150,))
    load_checkpoint(str(tmp_path / "run"))
    path = tmp_path / "run" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:])
    with pytest.raises(DataError, match=rf"{path.name}: SHA-256 is .*, its manifest says .*: damaged"):
        load_checkpoint(str(tmp_path / "run"))
