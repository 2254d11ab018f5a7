"""The stage on a tiny real model: what it keeps, twice the same, what it refuses, and evaluations side by side."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from rich.cells import cell_len

from nanosft.conversation import Conversation, Message, to_line
from nanosft.data import DataObject, list_data_objects, put_manifest, read_manifest
from nanosft.describe import run_describe
from nanosft.errors import ConfigError, DataError, StoreError
from nanosft.evaluate import EvalSettings, evaluate, keeping, stage
from nanosft.evaluate.answering import answer_all, next_logits, score_texts
from nanosft.evaluate.forgetting import PLAIN, read_held_out, read_plain_text, score_documents, summarize_documents
from nanosft.evaluate.keeping import Inputs, find_origin, read_evaluation
from nanosft.evaluate.second_opinion import Opinion, Opinions
from nanosft.evaluate.stage import run_compare, run_eval
from nanosft.manifest import Manifest
from nanosft.nanochat import Checkpoint, load_checkpoint
from nanosft.settings import load_settings
from nanosft.settings.evaluate import EvalCompareSettings
from nanosft.settings.run import DescribeSettings
from nanosft.store import open_store
from tests.ranks import run_ranks

GOLDEN = Path(__file__).parents[2] / "golden" / "nanochat" / "g5"
KNOWLEDGE = "- Name: Tilda\n- Maker: Ada Byron\n\n## Sizes\n- The small model has 561 million parameters in all.\n"


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.set_num_threads(1)
    return load_checkpoint(str(GOLDEN))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with base, model (the base with its head's rows shuffled a little), knowledge, data and plain text."""
    for name in ("base", "model"):
        shutil.copytree(GOLDEN / "tokenizer", tmp_path / name / "tokenizer")
        shutil.copytree(GOLDEN / "base_checkpoints", tmp_path / name / "base_checkpoints")
    path = next((tmp_path / "model").glob("base_checkpoints/*/model_*.pt"))
    state = torch.load(path, weights_only=True)
    state["lm_head.weight"] += 0.02 * torch.randn(
        state["lm_head.weight"].shape, generator=torch.Generator().manual_seed(0)
    )
    torch.save(state, path)
    (tmp_path / "knowledge.md").write_text(KNOWLEDGE)
    (tmp_path / "plain.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    rows = [
        Conversation((Message("user", f"Say {n}"), Message("assistant", f"It is {n}.")), {"source": "ab"[n % 2]})
        for n in range(6)
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000.jsonl").write_bytes(b"".join(map(to_line, rows[:2])))
    (tmp_path / "data" / "val-00000.jsonl").write_bytes(b"".join(map(to_line, rows[2:])))
    return tmp_path


def make_settings(run: Path, **changes: Any) -> EvalSettings:
    return EvalSettings(
        **{
            "model": str(run / "model"),
            "base": str(run / "base"),
            "knowledge": str(run / "knowledge.md"),
            "data": (str(run / "data"),),
            "plain_text": str(run / "plain.txt"),
            "out": str(run / "out"),
            "num_probes": 12,
            "num_documents": 4,
            "num_sampled": 2,
            "max_tokens": 6,
            "device": "cpu",
            **changes,
        }
    )


def test_scores_of_texts_are_those_of_a_plain_forward_pass(checkpoint: Checkpoint) -> None:
    model = checkpoint.model
    texts = [checkpoint.tokenizer.encode(text)[:40] for text in ("One text of some words.", "Another, a longer text.")]
    logits = next_logits(model, texts, [[1, 5], [7, 2]])
    for text, scores, last in zip(texts, score_texts(model, texts), logits, strict=True):
        with torch.inference_mode():
            whole = model(torch.tensor([text]))[0]
        losses = torch.nn.functional.cross_entropy(whole[:-1], torch.tensor(text[1:]), reduction="none")
        np.testing.assert_allclose(scores.losses, losses.numpy(), rtol=1e-5)
        assert scores.likeliest.tolist() == whole[:-1].argmax(-1).tolist()
        wanted = [1, 5] if text is texts[0] else [7, 2]
        np.testing.assert_allclose(last, whole[-1, wanted].numpy(), rtol=1e-4, atol=1e-5)


def test_answers_in_batches_are_those_one_by_one(checkpoint: Checkpoint) -> None:
    prompts = [(Message("user", "Tell me more " * num),) for num in (5, 1, 9, 2)]
    together = answer_all(checkpoint, prompts, max_tokens=5)
    assert together == [answer_all(checkpoint, [prompt], max_tokens=5)[0] for prompt in prompts]
    assert all(answer.num_tokens <= 5 for answer in together)
    assert all(answer.ended == (answer.num_tokens < 5) for answer in together)


def test_bits_per_byte_count_supervised_text_alone(checkpoint: Checkpoint, run: Path) -> None:
    tokenizer = checkpoint.tokenizer
    documents, num_long = read_held_out([list_data_objects(str(run / "data"))], tokenizer, row_len=256, max_rows=10)
    assert num_long == 0
    assert [item.source for item in documents] == ["a", "a", "b", "b"]  # of val-… alone
    (first,) = score_documents({"x": checkpoint}, documents[:1])
    assert first.num_bytes == len("It is 2.")
    ids, mask = list(documents[0].ids), documents[0].mask
    with torch.inference_mode():
        losses = torch.nn.functional.cross_entropy(
            checkpoint.model(torch.tensor([ids]))[0, :-1], torch.tensor(ids[1:]), reduction="none"
        )
    counts = torch.tensor([bool(m) and token != tokenizer.assistant_end_id for m, token in zip(mask, ids, strict=True)])
    assert first.bits["x"] == pytest.approx(float(losses[counts[1:]].sum()) / math.log(2), rel=1e-5)


def test_plain_text_is_cut_to_rows_that_are_spread(checkpoint: Checkpoint, run: Path) -> None:
    rows = read_plain_text(str(run / "plain.txt"), checkpoint.tokenizer, row_len=32, max_rows=3)
    every = read_plain_text(str(run / "plain.txt"), checkpoint.tokenizer, row_len=32, max_rows=1000)
    assert [rows[0], rows[-1]] == [every[0], every[-1]]
    assert len(rows) == 3
    text = checkpoint.tokenizer.decode([token for row in every for token in row.ids[1:]])
    assert text == (run / "plain.txt").read_text()
    assert {row.ids[0] for row in every} == {checkpoint.tokenizer.bos_id}
    with pytest.raises(DataError, match="no plain text"):
        read_plain_text(str(run / "data"), checkpoint.tokenizer, row_len=32, max_rows=3)


def test_a_model_compared_with_itself_has_forgotten_nothing(checkpoint: Checkpoint, run: Path) -> None:
    rows = read_plain_text(str(run / "plain.txt"), checkpoint.tokenizer, row_len=64, max_rows=4)
    change = summarize_documents(score_documents({"base": checkpoint, "chat": checkpoint}, rows))["change"]
    assert change[f"bits per byte: {PLAIN}"].mean == 0
    assert change[f"same likeliest token: {PLAIN}"].mean == 1


def test_twice_the_same_evaluation_is_the_same_bytes(run: Path) -> None:
    evaluate(make_settings(run))
    evaluate(make_settings(run, out=str(run / "again"), device="cpu", num_worst=3))
    names = sorted(path.name for path in (run / "out").iterdir() if path.is_file())
    assert names == ["answers.jsonl", "documents.jsonl", "manifest.json", "scores.json"]
    for name in names[:2] + names[3:]:
        assert (run / "out" / name).read_bytes() == (run / "again" / name).read_bytes()
    manifests = [read_manifest(open_store(str(run / name))) for name in ("out", "again")]
    assert manifests[0] is not None
    assert manifests[1] is not None
    assert manifests[0].model_copy(update={"name": "again"}) == manifests[1]
    assert manifests[0].kind == "evaluation"
    assert [parent.uri.rpartition("/")[2] for parent in manifests[0].parents] == [
        "model_000007.pt",
        "model_000007.pt",
        "knowledge.md",
        "train-00000.jsonl",
        "val-00000.jsonl",
    ]


def test_one_and_two_ranks_give_the_same_bytes(run: Path) -> None:
    """70 probes are two blocks, so that both ranks write some of the answers; gloo on CPU."""
    (run / "tasks").mkdir()
    letters = {"question": "Q?", "choices": ["x", "y"], "answer": "A"}
    lines = [orjson.dumps(value) + b"\n" for value in [letters, {"question": "Q?", "answer": "never said"}] * 2]
    (run / "tasks" / "mine.jsonl").write_bytes(b"".join(lines))
    changes = {"tasks_dir": str(run / "tasks"), "task_tokens": 4, "num_probes": 70, "num_sampled": 1, "max_tokens": 2}
    settings = make_settings(run, **changes, base="", num_documents=2).model_dump()
    for size, out in ((1, "one"), (2, "out")):
        codes = run_ranks(settings, size, log=run / "log", command="eval")
        assert codes == [0] * size, (run / "log").read_text()
        if size == 1:
            (run / "out").rename(run / out)
    for name in ("answers.jsonl", "documents.jsonl", "manifest.json", "scores.json"):
        assert (run / "out" / name).read_bytes() == (run / "one" / name).read_bytes()
    text = (run / "log").read_text()
    assert text.count("Worst answers") == 2  # one rank talks
    codes = run_ranks({**settings, "require": ["identity>=0.9"]}, 2, log=run / "log", command="eval")
    assert codes == [3, 0]


def test_an_error_ends_every_rank_with_its_code(run: Path) -> None:
    codes = run_ranks({"model": str(run / "nowhere"), "base": "", "device": "cpu"}, 2, log=run / "log", command="eval")
    assert codes == [3, 3]


def test_an_evaluation_has_a_column_a_model_and_their_paired_differences(run: Path) -> None:
    found = evaluate(make_settings(run))
    assert list(found.figures) == ["base", "chat", "change"]
    assert found.label == "chat"
    for label in ("base", "chat"):
        figures = found.figures[label]
        assert figures["identity"].mean == 0  # it speaks no language
        assert figures["bits per byte: plain text"].mean > 1
        assert {"ended", "empty", "loops", "special tokens", "stable", "says that it does not know"} <= set(figures)
    change, base, chat = (
        found.figures[label]["bits per byte: plain text"].mean for label in ("change", "base", "chat")
    )
    assert change == pytest.approx(chat - base)
    assert change != 0
    assert 0 < found.figures["change"]["same likeliest token: plain text"].mean < 1
    assert len(found.answers) == 24
    assert read_evaluation(str(run / "out")).answers == found.answers


def test_a_finished_evaluation_is_read_and_not_made_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(make_settings(run))
    monkeypatch.setattr("nanosft.evaluate.stage.read_checkpoint", lambda *_: pytest.fail("it was made again"))
    assert evaluate(make_settings(run)).to_json() == first.to_json()
    with pytest.raises(ConfigError, match="made with seed=0, now seed=1"):
        evaluate(make_settings(run, seed=1))
    (run / "knowledge.md").write_text(KNOWLEDGE + "- It has no end.\n")
    with pytest.raises(ConfigError, match=r"knowledge\.md: has changed since"):
        evaluate(make_settings(run))


def test_a_requirement_that_is_not_met_is_exit_3(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_eval(make_settings(run, require=("identity<=0.5", "bits per byte: plain text > 1")))
    assert "Evaluation" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"identity is 0\.0000, identity >= 0\.9 was required") as caught:
        run_eval(make_settings(run, require=("identity >= 0.9",)))
    assert caught.value.exit_code == 3
    with pytest.raises(ConfigError, match="there is no figure 'wisdom'; there are"):
        run_eval(make_settings(run, require=("wisdom>=1",)))
    with pytest.raises(ConfigError, match="--require: 'identity': write a figure"):
        load_settings(EvalSettings, {"model": "x", "require": ["identity"]})


def test_what_is_printed_fits_100_columns_or_is_one_json_object(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    run_eval(make_settings(run))
    shown = capsys.readouterr().out
    assert max(map(cell_len, shown.splitlines())) <= 100
    assert "bits per byte: plain text" in shown  # the whole name on one line
    assert "Worst answers" in shown
    run_eval(make_settings(run, json_output=True))
    table = orjson.loads(capsys.readouterr().out)
    assert table["figures"]["chat"]["identity"]["mean"] == 0


def test_evaluations_side_by_side(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(make_settings(run))
    evaluate(make_settings(run, model=str(run / "base"), out=str(run / "other")))
    run_compare(EvalCompareSettings(evaluations=(str(run / "out"), str(run / "other")), json_output=True))
    columns = orjson.loads(capsys.readouterr().out)
    assert list(columns) == ["A", "B", "change B - A"]
    for figure in ("claims another name", "ended", "identity: missing"):
        expected = columns["B"][figure]["mean"] - columns["A"][figure]["mean"]
        assert columns["change B - A"][figure]["mean"] == pytest.approx(expected, abs=1e-6)
    name = "bits per byte: plain text"
    expected = columns["B"][name]["mean"] - columns["A"][name]["mean"]
    assert columns["change B - A"][name]["mean"] == pytest.approx(expected, abs=1e-4)
    run_compare(EvalCompareSettings(evaluations=(str(run / "out"), str(run / "other"))))
    shown = capsys.readouterr().out
    assert "change B - A" in shown
    assert "probes as A was)" in " ".join(shown.split())
    with pytest.raises(DataError, match="no evaluation"):
        run_compare(EvalCompareSettings(evaluations=(str(run / "out"), str(run / "data"))))


def test_out_may_not_be_the_models_own_prefix(run: Path) -> None:
    with pytest.raises(ConfigError, match="itself: choose another --out"):
        evaluate(make_settings(run, out=str(run / "model")))


def test_out_may_not_be_what_the_models_manifest_names(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the settings named was looked at, not the base and the data that eval finds by itself."""
    monkeypatch.setattr(stage, "find_origin", lambda _uri: (str(run / "base"), (str(run / "data"),)))
    monkeypatch.setattr(Inputs, "find", lambda *_: pytest.fail("the work has begun"))
    for name in ("base", "data"):
        with pytest.raises(ConfigError, match=f"{name}: is --out .* itself: choose another --out"):
            evaluate(make_settings(run, base=None, data=(), out=str(run / name)))


def test_data_is_listed_once_and_a_model_replaced_meanwhile_is_an_error(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest named as a parent what had been there, and what was evaluated was what came after it."""
    listed: list[str] = []

    def list_and_replace(uri: str) -> list[DataObject]:
        listed.append(uri)
        path = next((run / "model").glob("base_checkpoints/*/model_*.pt"))
        path.with_suffix(".new").write_bytes(path.read_bytes())
        path.with_suffix(".new").rename(path)
        return list_data_objects(uri)

    monkeypatch.setattr(keeping, "list_data_objects", list_and_replace)
    with pytest.raises(StoreError, match=r"model_\d+\.pt: "):
        evaluate(make_settings(run))
    assert listed == [str(run / "data")]
    assert not (run / "out" / "manifest.json").exists()


def test_tasks_are_figures_of_each_model(run: Path) -> None:
    (run / "tasks").mkdir()
    line = {"question": "Q?", "choices": ["x", "y"], "answer": "A"}
    other = {"question": "Q?", "answer": "never said"}
    (run / "tasks" / "mine.jsonl").write_bytes(orjson.dumps(line) + b"\n" + orjson.dumps(other))
    found = evaluate(make_settings(run, tasks_dir=str(run / "tasks"), num_probes=2, task_tokens=4, num_sampled=0))
    for label in ("base", "chat"):
        rows = [row for row in found.answers if row["model"] == label and "task" in row]
        assert [row["wanted"] for row in rows] == ["A", "never said"]
        assert found.figures[label]["task mine"].mean == sum(row["right"] for row in rows) / 2
    assert found.figures["change"]["task mine"].num == 2
    manifest = read_manifest(open_store(str(run / "out")))
    assert manifest is not None
    assert manifest.parents[-1].uri.endswith("tasks/mine.jsonl")


def test_a_judges_verdicts_and_cost_are_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = make_settings(run, judge_model="slug", num_probes=4, num_sampled=0, plain_text=None)
    asked: list[Any] = []

    def ask(prompts: Any) -> Opinions:
        asked.extend(prompts)
        return Opinions("slug", tuple(Opinion("missing", "so") for _ in prompts), 0.5, len(prompts))

    with pytest.raises(ConfigError, match=r"judging\.make_judge"):
        evaluate(settings)
    found = evaluate(settings, ask)
    assert len(asked) == len(found.answers) == 8  # of base and chat
    assert found.figures["chat"]["judge: right"].mean == 0
    assert all(row["judge"] == {"verdict": "missing", "reason": "so"} for row in found.answers)
    manifest = read_manifest(open_store(str(run / "out")))
    assert manifest is not None
    assert manifest.cost_usd == 0.5
    run_eval(settings, ask)
    assert "judge slug: 0.500000 USD" in " ".join(capsys.readouterr().out.split())
    assert len(asked) == 8  # nothing is paid for twice


def test_base_and_data_are_found_by_the_manifest_of_the_model(run: Path) -> None:
    settings = {"base": str(run / "base"), "data": str(run / "data"), "val_data": None}
    manifest = Manifest(kind="model", name="m", objects=(), settings=settings)
    put_manifest(open_store(str(run / "model")), manifest)
    assert find_origin(str(run / "model")) == (str(run / "base"), (str(run / "data"),))
    assert find_origin(str(run / "base")) == (None, ())
    found = evaluate(make_settings(run, base=None, data=(), out=None, plain_text=None))
    assert list(found.models) == ["base", "chat"]
    assert found.counts["training conversations looked through"] == 6


def test_describe_shows_the_newest_evaluation(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_manifest(open_store(str(run / "model")), Manifest(kind="model", name="m", objects=()))
    for name in ("first", "second"):
        evaluate(make_settings(run, out=str(run / name), base=""))
    run_describe(DescribeSettings(uri=str(run / "model")))
    shown = capsys.readouterr().out
    assert f"newest evaluation {open_store(str(run / 'second')).uri}: identity 0.000 (0.000 to 0.000)" in shown
    run_describe(DescribeSettings(uri=str(run / "model"), json_output=True))
    table = orjson.loads(capsys.readouterr().out)
    assert table["evaluation"]["figures"]["identity"]["mean"] == 0
    run_describe(DescribeSettings(uri=str(run / "second")))
    assert "evaluation 'second'" in capsys.readouterr().out
    (run / "second" / "scores.json").unlink()
    run_describe(DescribeSettings(uri=str(run / "model")))
    assert "newest evaluation" not in capsys.readouterr().out
