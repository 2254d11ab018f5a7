"""Model files from strangers: what is no parameter, or would take memory that the file does not fill, is refused."""

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nanosft.errors import DataError
from nanosft.nanochat import load_checkpoint
from nanosft.nanochat.generations import GENERATIONS, detect_generation, parse_model_config
from nanosft.nanochat.tensors import read_tensors, write_tensors
from nanosft.nanochat.tokenizer import parse_tokenizer
from nanosft.store import open_store
from tests.unit.nanochat.conftest import GOLDEN

CONFIG = {"sequence_len": 256, "vocab_size": 741, "n_layer": 4, "n_head": 2, "n_kv_head": 1, "n_embd": 64}


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """The model file of a copy of g5's base directory."""
    shutil.copytree(GOLDEN / "g5", tmp_path / "base")
    return tmp_path / "base/base_checkpoints/d4/model_000007.pt"


def change(path: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """Save the state dict anew, edited; the base's URI."""
    torch.save(edit(torch.load(path, weights_only=True)), path)
    return str(path.parents[2])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_ddp_and_compile_are_taken_off(model_file: Path, prefix: str) -> None:
    expected = load_checkpoint(str(model_file.parents[2])).model.state_dict()
    uri = change(model_file, lambda state: {f"{prefix}{key}": tensor for key, tensor in state.items()})
    found = load_checkpoint(uri).model.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_blocks_that_were_compiled_one_by_one_are_read(model_file: Path) -> None:
    uri = change(model_file, lambda state: {key.replace(".h.0.", ".h.0._orig_mod."): state[key] for key in state})
    assert load_checkpoint(uri).generation.name == "g5"
    uri = change(model_file, lambda state: state | {"module.lm_head.weight": state["lm_head.weight"]})
    with pytest.raises(DataError, match="holds 1 keys twice"):
        load_checkpoint(uri)


def test_a_base_with_experts_is_refused_with_their_names(model_file: Path) -> None:
    extra = {
        f"transformer.h.{layer}.mlp.{part}.weight": torch.zeros(2)
        for layer in range(4)
        for part in ("router", "experts")
    }
    uri = change(model_file, lambda state: state | extra)
    with pytest.raises(DataError) as caught:
        load_checkpoint(uri)
    assert all(f"'{key}'" in str(caught.value) for key in extra)
    many = {f"experts.{number}": torch.zeros(1) for number in range(200)}
    uri = change(model_file, lambda state: state | many)
    with pytest.raises(DataError, match="and 192 more: its model may compute something else") as caught:
        load_checkpoint(uri)
    assert len(str(caught.value)) < 1500
    with pytest.raises(DataError, match="model_config has 'n_experts', 'top_k', which no known generation"):
        parse_model_config({**CONFIG, "top_k": 2, "n_experts": 8}, where="meta")


def test_an_old_meta_without_todays_keys_is_filled() -> None:
    old = {key: value for key, value in CONFIG.items() if key != "n_kv_head"}
    config = parse_model_config(old, where="meta")
    assert (config.n_kv_head, config.window_pattern) == (2, None)
    assert detect_generation(["lm_head.weight"], None, where="model") is GENERATIONS["g1"]


@pytest.mark.parametrize(
    ("key", "value"), [("n_layer", 10**7), ("sequence_len", 10**12), ("vocab_size", 1 << 40), ("n_embd", 1 << 30)]
)
def test_sizes_that_no_model_has_are_refused_before_anything_is_made(key: str, value: int) -> None:
    with pytest.raises(DataError, match=rf"{key} must be 1 to [\d,]+, found {value}"):
        parse_model_config({**CONFIG, key: value}, where="meta")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.eye(3).to_sparse(), "1 tensors not dense: 'lm_head.weight'"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "not dense: 'lm_head.weight'"),
        (lambda: torch.empty(3, device="meta"), "not dense: 'lm_head.weight'"),
        (lambda: torch.zeros(1).expand(1 << 40), "not dense: 'lm_head.weight'"),
        (lambda: torch.tensor([1.0, float("nan")]), "not finite: 'lm_head.weight'"),
        (lambda: torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16), "not finite: 'lm_head.weight'"),
    ],
)
def test_tensors_that_are_no_parameters_are_refused_by_name(
    tmp_path: Path, make: Callable[[], torch.Tensor], said: str
) -> None:
    torch.save({"wte": torch.ones(2), "lm_head.weight": make()}, tmp_path / "model.pt")
    with pytest.raises(DataError, match=said):
        read_tensors(open_store(str(tmp_path)), "model.pt")


def test_a_compressed_model_file_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"wte": torch.zeros(1 << 20)}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "model.pt", "w") as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "model.pt").stat().st_size < 10_000
    with pytest.raises(DataError, match="its archive is compressed"):
        read_tensors(open_store(str(tmp_path)), "model.pt")


def test_torchs_advice_to_read_a_file_unsafely_is_not_repeated(tmp_path: Path) -> None:
    torch.save({"wte": Path("/")}, tmp_path / "model.pt")
    with pytest.raises(DataError) as caught:
        read_tensors(open_store(str(tmp_path)), "model.pt")
    assert "it asks for pathlib.PosixPath, and nothing of it was run" in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a place in the memo that takes 16 GiB
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",  # a bytearray of a terabyte
    ],
)
def test_a_small_pickle_cannot_take_all_memory(data: bytes) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.pkl: "):
        parse_tokenizer(data, where="tokenizer.pkl")


def test_a_token_id_that_no_model_has_is_refused() -> None:
    import tiktoken  # noqa: PLC0415

    ranks = {bytes([byte]): byte for byte in range(256)}
    for special, pattern, said in (
        ({"<|bos|>": 1 << 31}, ".", "an id of 1,048,576 or more"),
        ({"<|bos|>": 256}, "", "no pattern"),
    ):
        encoding = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
        with pytest.raises(DataError, match=said):
            parse_tokenizer(pickle.dumps(encoding), where="tokenizer.pkl")


def test_a_flipped_bit_of_a_file_that_no_manifest_vouches_for_is_found_by_its_check_sums(tmp_path):
    store = open_store(str(tmp_path))
    write_tensors(store, "a.pt", {"weight": torch.arange(1000, dtype=torch.float32)})
    path = tmp_path / "a.pt"
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(100, 110, dtype=torch.float32).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.pt: .*check sum of its record"):
        read_tensors(store, "a.pt")
