"""Models: what transformers computes from an export is what the checkpoint computes, and a tampered one is caught."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from nanosft.data import read_manifest
from nanosft.errors import ConfigError, DataError
from nanosft.export.check import check_export
from nanosft.export.convert import convert_tensors
from nanosft.export.stage import export, run_export
from nanosft.manifest import MANIFEST_KEY
from nanosft.nanochat import Engine, load_checkpoint
from nanosft.settings.export import ExportSettings
from nanosft.store import open_store

GOLDEN = Path(__file__).parents[2] / "golden" / "nanochat"
TEXT = "The quick brown fox jumps over the lazy dog.\n" * 3

# Run without nanosft on the path: greedy answers in a padded batch, with a static cache, by beams, piped and streamed.
ALONE = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer, pipeline

class Pieces(TextStreamer):
    def on_finalized_text(self, text, stream_end=False):
        pieces.append(text)

torch.set_num_threads(1)
found = {}
for folder in sys.argv[1:]:
    trust = {"trust_remote_code": True} if folder.endswith("g5") else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
    model = AutoModelForCausalLM.from_pretrained(folder, **trust)
    questions = ("Hi", "Who are you, and who made you?", "Tell me of ships.")
    chats = [[{"role": "user", "content": said}] for said in questions]
    options = {"do_sample": False, "max_new_tokens": 24}
    template = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    batch = tokenizer.apply_chat_template(chats, padding=True, **template)
    width = batch["input_ids"].shape[1]
    together = model.generate(**batch, **options)[:, width:].tolist()
    fixed = model.generate(**batch, **options, cache_implementation="static", disable_compile=True)[:, width:].tolist()
    beams = model.generate(**batch, **options, num_beams=2)[:, width:].tolist()
    without = model.generate(**batch, **options, num_beams=2, use_cache=False)[:, width:].tolist()
    chat = pipeline("text-generation", model=model, tokenizer=tokenizer)
    said = [own["generated_text"][-1]["content"] for own in chat(chats[1], **options)]
    pieces = []
    one = tokenizer.apply_chat_template(chats[1], **template)
    model.generate(**one, **options, streamer=Pieces(tokenizer, skip_prompt=True, skip_special_tokens=True))
    found[folder[-2:]] = {
        "class": type(model).__name__,
        "answers": together,
        "equal": together == fixed and beams == without,
        "pipeline": said,
        "streamed": "".join(pieces).strip("\\n"),
    }
assert not any(name.partition(".")[0] == "nanosft" for name in sys.modules)
print(json.dumps(found))
"""


def test_transformers_alone_answers_as_nanosft_does_in_batches_pipelines_and_streams(exported, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(exported / "g1"), str(exported / "g5")],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    found = orjson.loads(done.stdout)

    assert found["g1"]["class"] == "NanoChatForCausalLM"
    assert found["g5"]["class"] == "NanochatForCausalLM"
    for name in ("g1", "g5"):
        checkpoint = load_checkpoint(str(GOLDEN / name))
        tokenizer = checkpoint.tokenizer
        engine = Engine(checkpoint.model, tokenizer, context_len=checkpoint.context_len)
        fast = AutoTokenizer.from_pretrained(exported / name, trust_remote_code=True)
        assert found[name]["equal"]
        for said, answer in zip(
            ("Hi", "Who are you, and who made you?", "Tell me of ships."), found[name]["answers"], strict=True
        ):
            prompt = [{"role": "user", "content": said}]
            ids = fast.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
            ours = list(engine.generate(ids, max_tokens=24, temperature=0.0))
            assert answer[: len(ours)] == ours
            assert answer[len(ours) :] == [] or answer[len(ours)] in engine.stop_ids
            if said.startswith("Who"):
                assert found[name]["pipeline"] == [tokenizer.decode(ours)]
                assert found[name]["streamed"] == tokenizer.decode(ours).strip("\n")


def test_every_generation_and_dtype_is_within_the_bounds_of_its_own_check(exported):
    for name in ("g1", "g3", "g5", "g5-bfloat16"):
        manifest = read_manifest(open_store(str(exported / name)))
        assert manifest is not None
        assert manifest.kind == "exported-model"
        assert manifest.counts["num_positions"] == 200
        assert manifest.counts["num_answers"] == 50
        assert manifest.counts["largest_difference"] < 1e-5
    whole, half = ((exported / name / "model.safetensors").stat().st_size for name in ("g5", "g5-bfloat16"))
    assert half < 0.6 * whole
    assert "model.layers.0.self_attn.q_proj.weight" in load_file(exported / "g1" / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("tensor", "tensor transformer.h.1.mlp.c_fc.weight is not what was read"),
        ("softcap", r"logits at position \d+ by"),
        ("no smear", r"logits at position \d+ by"),
        ("ranks", "becomes other ids at token"),
        ("template", r"conversation .* gets other ids at token"),
        ("mask", r"conversation .* gets other a loss mask at token"),
    ],
)
def test_a_tampered_export_is_caught_and_the_message_says_where(exported, tmp_path, damage, said):
    folder = tmp_path / "export"
    shutil.copytree(exported / "g5", folder)
    checkpoint = load_checkpoint(str(GOLDEN / "g5"))
    tensors = convert_tensors(checkpoint, torch.float32)
    template = folder / "chat_template.jinja"
    if damage == "tensor":
        damaged = {name: tensor.clone() for name, tensor in tensors.items()}
        damaged["transformer.h.1.mlp.c_fc.weight"][3, 5] += 1e-3
        save_file(damaged, folder / "model.safetensors", metadata={"format": "pt"})
    elif damage in {"softcap", "no smear"}:
        config = orjson.loads((folder / "config.json").read_bytes())
        config |= {"final_logit_softcapping": 14.0} if damage == "softcap" else {"has_smear": False}
        (folder / "config.json").write_bytes(orjson.dumps(config))
    elif damage == "ranks":
        tokenizer = orjson.loads((folder / "tokenizer.json").read_bytes())
        tokenizer["model"]["merges"].pop(3)
        tokenizer["model"]["ignore_merges"] = False
        (folder / "tokenizer.json").write_bytes(orjson.dumps(tokenizer))
    elif damage == "template":
        template.write_text(template.read_text().replace("\\n\\n", "\\n"))
    else:
        head, _, tail = template.read_text().rpartition("{%- generation -%}")
        template.write_text(head + tail.replace("{%- endgeneration -%}", ""))

    with pytest.raises(DataError, match=said):
        check_export(folder, checkpoint, tensors, text=TEXT)


def test_what_is_refused_leaves_no_manifest_and_a_second_try_begins_anew(tmp_path, monkeypatch):
    out = tmp_path / "out"
    settings = ExportSettings(model=str(GOLDEN / "g5"), out=str(out))
    with monkeypatch.context() as patched:
        patched.setattr("nanosft.export.huggingface.CHAT_TEMPLATE", "{{ messages }}")
        with pytest.raises(DataError, match="gets other ids"):
            export(settings)
    assert not (out / MANIFEST_KEY).exists()

    manifest = export(settings)

    assert {item.key for item in manifest.objects} == {path.name for path in out.iterdir() if path.is_file()} - {
        MANIFEST_KEY
    }
    assert export(settings) == manifest
    with pytest.raises(ConfigError, match="license"):
        export(ExportSettings(model=str(GOLDEN / "g5"), out=str(out), license="mit"))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"thesis\.txt: --out is not empty"):
        export(ExportSettings(model=str(GOLDEN / "g5"), out=str(tmp_path / "foreign")))


def test_rendered_goldens_get_nanochats_ids_and_mask(exported):
    tokenizer = AutoTokenizer.from_pretrained(exported / "g5", trust_remote_code=True)
    lines = [orjson.loads(line) for line in (GOLDEN / "g5" / "render.jsonl").read_bytes().splitlines()]
    assert len(lines) == 27
    for line in lines:
        found = tokenizer.apply_chat_template(
            line["conversation"]["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        assert found["input_ids"] == line["ids"]
        assert found["assistant_masks"] == line["mask"]


def test_the_template_refuses_what_training_refuses_and_joins_parts_of_text(exported):
    tokenizer = AutoTokenizer.from_pretrained(exported / "g5", trust_remote_code=True)
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    joined = tokenizer.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    assert joined == "<|bos|><|user_start|>Hi there<|user_end|>"
    for roles in (["assistant"], ["user", "user"], ["system"], ["user", "system"]):
        with pytest.raises(Exception, match="user"):
            tokenizer.apply_chat_template([{"role": role, "content": "x"} for role in roles])


@pytest.mark.parametrize("layout", ["directory", "flat"])
def test_nanochats_layouts_hold_the_same_model_and_are_read_back(tmp_path, layout):
    out = tmp_path / "out"
    run_export(ExportSettings(model=str(GOLDEN / "g5"), to="nanochat", layout=layout, out=str(out)))
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    if layout == "flat":
        assert names == {"model_000007.pt", "meta_000007.json", "tokenizer.pkl", "token_bytes.pt", MANIFEST_KEY}
        state = torch.load(out / "model_000007.pt", weights_only=True)
    else:
        found = load_checkpoint(str(out))
        assert (found.tag, found.step, found.source) == ("d4", 7, "base")
        state = found.model.state_dict()
    wanted = load_checkpoint(str(GOLDEN / "g5")).model.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)


def test_gguf_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"no released llama\.cpp has an architecture"):
        ExportSettings(model="run", to="gguf", out="out")
