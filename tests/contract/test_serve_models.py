"""One server for all five generations: its answers are chat's, and `nanosft generate` takes it for its model."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
import torch

from nanosft.chat.dialogue import open_chats
from nanosft.data import read_manifest
from nanosft.generate.stage import run_generate
from nanosft.nanochat import GENERATIONS, load_checkpoint, save_checkpoint
from nanosft.nanochat.generations import ModelConfig
from nanosft.settings.chat import ChatSettings
from nanosft.settings.generate import GenerateSettings
from nanosft.store import open_store
from tests.serving import Serving, serving
from tests.unit.nanochat.conftest import make_model

GOLDEN = Path(__file__).parents[1] / "golden" / "nanochat"
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model of each generation: nanochat's own where there is a golden, else one made up; and one that reads long."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("models")
    found = {name: str(GOLDEN / name) for name in GENERATIONS if (GOLDEN / name).exists()}
    vocab_size = load_checkpoint(found["g5"]).tokenizer.vocab_size
    config = ModelConfig(
        sequence_len=256, vocab_size=vocab_size, n_layer=4, n_head=4, n_kv_head=2, n_embd=64, window_pattern="SSL"
    )
    for name in GENERATIONS.keys() - found.keys():
        found[name] = str(root / name)
        save_checkpoint(
            found[name], make_model(name, config=config), {"model_config": asdict(config)}, tag="d4", step=1,
            source="base", tokenizer_from=str(GOLDEN / "g5"),
        )  # fmt: skip
    long = root / "long"
    shutil.copytree(GOLDEN / "g5", long)
    (meta,) = (long / "base_checkpoints" / "d4").glob("meta_*.json")
    meta.write_text(json.dumps({**json.loads(meta.read_bytes()), "max_seq_len": 1 << 15}))
    return {**found, "long": str(long)}


@pytest.fixture(scope="module")
def server(models: dict[str, str]) -> Iterator[Serving]:
    with serving(model=tuple(f"{name}={uri}" for name, uri in models.items())) as running:
        yield running


@pytest.mark.parametrize("name", list(GENERATIONS))
def test_greedy_answers_are_those_of_chat_to_the_letter(server: Serving, models: dict[str, str], name: str) -> None:
    assert load_checkpoint(models[name]).generation.name == name
    settings = ChatSettings(model=(f"{name}={models[name]}",), device="cpu", temperature=0, max_tokens=24)
    (chat,) = open_chats(settings)
    chat.set_system("You are a small model.")
    messages = [{"role": "system", "content": "You are a small model."}]
    for question in ("Who are you?", "Naïve 日本語 <|bos|>?"):
        expected = "".join(chat.answer(question))
        messages.append({"role": "user", "content": question})
        body = {"model": name, "messages": messages, "temperature": 0, "max_tokens": 24}
        choice = httpx.post(f"{server.api}/chat/completions", json=body, timeout=TIMEOUT_S).json()["choices"][0]
        assert choice["message"]["content"] == expected
        assert chat.last is not None
        assert choice["finish_reason"] == {"limit": "length", "stop": "stop"}[chat.last.end]
        messages.append({"role": "assistant", "content": expected})


def test_generate_takes_the_server_for_its_model(server: Serving, tmp_path: Path) -> None:
    """No small model writes conversations as JSON: each answer is rejected, counted and kept, and the run ends."""
    settings = GenerateSettings(
        out=str(tmp_path), base_url=server.api, model="long", openrouter_api_key="local", num=1, max_tokens=16,
        max_attempts=1,
    )  # fmt: skip
    run_generate(settings)
    manifest = read_manifest(open_store(str(tmp_path)))
    assert manifest is not None
    assert manifest.complete
    assert manifest.num_rows == 0
    assert manifest.counts["rows"]["given_up"] == 1
    assert manifest.counts["rejects"] == {"finish_length": 2}
    assert manifest.counts["tokens"]["completion"] == 2 * 16
