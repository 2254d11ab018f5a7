"""Checkpoints are read from nanochat's layout and written back to it."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nanosft.errors import ConfigError, DataError
from nanosft.nanochat import (
    find_checkpoint,
    init_model,
    load_checkpoint,
    load_tokenizer,
    read_optimizer_states,
    save_checkpoint,
    save_tokenizer,
    train_tokenizer,
)
from nanosft.nanochat.generations import GENERATIONS, ModelConfig
from nanosft.store import open_store
from tests.unit.nanochat.conftest import GOLDEN


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A copy of g5's base directory that may be changed."""
    shutil.copytree(GOLDEN / "g5", tmp_path / "base")
    return tmp_path / "base"


def add_checkpoint(base: Path, directory: str, tag: str, step: int, *, meta: bool = True) -> None:
    source = GOLDEN / "g5" / "base_checkpoints" / "d4"
    folder = base / directory / tag
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "model_000007.pt", folder / f"model_{step:06d}.pt")
    if meta:
        shutil.copy(source / "meta_000007.json", folder / f"meta_{step:06d}.json")


def test_the_deepest_tag_and_the_newest_step_are_taken(base: Path) -> None:
    for tag, step in (("d32", 5), ("d32", 900), ("d32", 1000), ("d9", 2000), ("mine", 3000)):
        add_checkpoint(base, "base_checkpoints", tag, step)
    ref = find_checkpoint(open_store(str(base)))
    assert (ref.source, ref.tag, ref.step) == ("base", "d32", 1000)
    checkpoint = load_checkpoint(str(base), tag="d32", step=900)
    assert (checkpoint.source, checkpoint.tag, checkpoint.step) == ("base", "d32", 900)
    with pytest.raises(ConfigError, match="no tag 'd12'; there are mine, d4, d9, d32"):
        load_checkpoint(str(base), tag="d12")
    with pytest.raises(ConfigError, match="no step 6; there are 5, 900, 1000"):
        load_checkpoint(str(base), tag="d32", step=6)
    with pytest.raises(ConfigError, match="'sft' is none of base, mid, chat, rl"):
        find_checkpoint(open_store(str(base)), source="sft")  # type: ignore[arg-type]


def test_a_chat_model_is_taken_before_its_base(base: Path) -> None:
    assert find_checkpoint(open_store(str(base))).source == "base"
    add_checkpoint(base, "chatsft_checkpoints", "d4", 650)
    assert find_checkpoint(open_store(str(base))).source == "chat"
    assert find_checkpoint(open_store(str(base)), source="base").step == 7


def test_without_checkpoints_the_error_tells_what_is_expected_and_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected base_checkpoints/<tag>/model_<step>\.pt, .*; nothing is there"):
        load_checkpoint(str(tmp_path))
    (tmp_path / "d4").mkdir()
    (tmp_path / "d4" / "model_000007.pt").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"there are d4/, notes\.txt"):
        load_checkpoint(str(tmp_path))


def test_a_model_without_its_meta_file_is_not_passed_over(base: Path) -> None:
    add_checkpoint(base, "base_checkpoints", "d4", 9, meta=False)
    with pytest.raises(DataError, match=r"model_000009\.pt: no meta_000009\.json beside it: name a whole one, step 7"):
        load_checkpoint(str(base))


def test_saved_models_are_read_back_bit_for_bit_with_the_config_unchanged(base: Path, tmp_path: Path) -> None:
    original = load_checkpoint(str(base))
    out = tmp_path / "out"
    meta = {**original.meta, "val_bpb": 0.9, "extra": [1, 2]}
    written = save_checkpoint(str(out), original.model, meta, tag="d4", step=650, tokenizer_from=str(base))
    assert [item.key for item in written] == [
        "tokenizer/tokenizer.pkl",
        "tokenizer/token_bytes.pt",
        "chatsft_checkpoints/d4/model_000650.pt",
        "chatsft_checkpoints/d4/meta_000650.json",
    ]
    assert all((out / item.key).stat().st_size == item.size_bytes for item in written)
    assert (out / "tokenizer" / "tokenizer.pkl").read_bytes() == (base / "tokenizer" / "tokenizer.pkl").read_bytes()
    again = load_checkpoint(str(out))
    assert (again.source, again.step, again.generation) == ("chat", 650, original.generation)
    assert again.meta["model_config"] == original.meta["model_config"]
    assert again.meta["extra"] == [1, 2]
    state = torch.load(out / "chatsft_checkpoints" / "d4" / "model_000650.pt", weights_only=True)
    nanochats = torch.load(base / "base_checkpoints" / "d4" / "model_000007.pt", weights_only=True)
    assert set(state) == set(nanochats)
    assert all(torch.equal(state[key], nanochats[key]) for key in state)


def test_an_override_of_softcap_and_generation_is_remembered(base: Path, tmp_path: Path) -> None:
    shutil.rmtree(base)
    shutil.copytree(GOLDEN / "g3", base)
    assert load_checkpoint(str(base)).generation.softcap == 15.0
    changed = load_checkpoint(str(base), softcap=20.0)
    save_checkpoint(str(tmp_path / "out"), changed.model, changed.meta, tag="d4", step=1, tokenizer_from=str(base))
    assert load_checkpoint(str(tmp_path / "out")).generation.softcap == 20.0
    assert load_checkpoint(str(tmp_path / "out"), softcap=15.0).generation == GENERATIONS["g3"]
    with pytest.raises(DataError, match=r"as g5: .*missing 'backout_lambda'"):
        load_checkpoint(str(base), generation="g5")
    with pytest.raises(ConfigError, match="'g6' is none of g1, g2"):
        load_checkpoint(str(base), generation="g6")


def test_a_malicious_model_file_is_refused_and_runs_nothing(base: Path, tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (proof,))

    path = base / "base_checkpoints" / "d4" / "model_000007.pt"
    torch.save({"lm_head.weight": Payload()}, path)
    with pytest.raises(DataError, match=r"model_000007\.pt: not a file of tensors that torch reads safely"):
        load_checkpoint(str(base))
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists(), "the payload is harmless: this test proves nothing"


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("model_000007.pt", b"", "not a file of tensors"),
        ("model_000007.pt", b"\x80\x02.", "not a file of tensors"),  # torch: IndexError
        ("model_000007.pt", b"\x80\x02}q\x01}Q.", "not a file of tensors"),  # torch: AssertionError or another
        ("model_000007.pt", b"PK\x03\x04 cut off", "not a file of tensors"),
        ("model_000007.pt", pickle.dumps([1, 2], protocol=2), "not a"),
        ("meta_000007.json", b"{", "not JSON"),
        ("meta_000007.json", b"[]", "expected a JSON object"),
        ("meta_000007.json", b"{}", "model_config must be an object"),
    ],
)
def test_damaged_files_are_data_errors_that_name_the_file(base: Path, name: str, content: bytes, match: str) -> None:
    (base / "base_checkpoints" / "d4" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*{match}"):
        load_checkpoint(str(base))


def test_a_model_file_that_ends_early_is_a_data_error(base: Path) -> None:
    path = base / "base_checkpoints" / "d4" / "model_000007.pt"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(DataError, match=r"model_000007\.pt: not a file of tensors"):
        load_checkpoint(str(base))


def test_a_tokenizer_of_another_vocabulary_is_refused(base: Path) -> None:
    save_tokenizer(str(base), train_tokenizer(["abc " * 100], 270))
    with pytest.raises(DataError, match=r"the model has 741 tokens, .*tokenizer\.pkl has .*do not belong together"):
        load_checkpoint(str(base))


def test_token_bytes_are_nanochats(tmp_path: Path) -> None:
    save_tokenizer(str(tmp_path), load_tokenizer(str(GOLDEN / "g1")))
    mine = torch.load(tmp_path / "tokenizer" / "token_bytes.pt", weights_only=True)
    nanochats = torch.load(GOLDEN / "g1" / "tokenizer" / "token_bytes.pt", weights_only=True)
    assert mine.dtype == nanochats.dtype
    assert torch.equal(mine, nanochats)


def test_optimizer_files_are_read_in_order_of_rank(base: Path) -> None:
    folder = base / "base_checkpoints" / "d4"
    for rank in (10, 2, 0):
        torch.save({"state": {0: {"momentum": torch.full((2,), float(rank))}}}, folder / f"optim_000007_rank{rank}.pt")
    torch.save({"state": {}}, folder / "optim_000003_rank0.pt")
    ref = find_checkpoint(open_store(str(base)))
    states = read_optimizer_states(str(base), ref)
    assert [state["state"][0]["momentum"][0].item() for state in states] == [0, 2, 10]
    assert find_checkpoint(open_store(str(GOLDEN / "g1"))).optimizer_keys == ()


def test_the_context_is_the_longest_row_the_model_was_trained_on(base: Path) -> None:
    assert load_checkpoint(str(base)).context_len == 256
    path = base / "base_checkpoints" / "d4" / "meta_000007.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_seq_len": 2048}))
    assert load_checkpoint(str(base)).context_len == 2048


def test_a_new_base_is_written_and_read_like_nanochats(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["to be or not to be " * 9], 280)
    config = ModelConfig(64, tokenizer.vocab_size, 2, 2, 1, 64, "SL")
    model = init_model(config, GENERATIONS["g5"], seed=1)
    save_tokenizer(str(tmp_path), tokenizer)
    save_checkpoint(str(tmp_path), model, {"model_config": config.to_dict()}, tag="d2", step=3, source="base")
    loaded = load_checkpoint(str(tmp_path))
    ids = torch.tensor([tokenizer.encode("to be")])
    assert torch.equal(loaded.model(ids), model(ids))
