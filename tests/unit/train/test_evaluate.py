import math
import shutil

import numpy as np
import pytest
import torch

from nanosft.distributed import World
from nanosft.errors import ConfigError
from nanosft.nanochat import load_checkpoint
from nanosft.packing import pack_in_order
from nanosft.settings.train import TrainSettings
from nanosft.train.batch import BatchBuilder
from nanosft.train.evaluate import (
    ValidationSet,
    evaluate,
    load_token_bytes,
    render_prompts,
    sample_answers,
)
from nanosft.train.progress import Progress, describe_rise
from nanosft.train.step import LossModule
from tests.unit.train.make import GOLDEN, golden_base, talk, tokens_of


def test_scores_by_source_are_those_of_each_conversation_alone():
    base = golden_base()
    tokens = tokens_of(
        talk("Who are you?", "I am nanochat, a small model.", source="self"),
        talk("Two and two?", "Four.", "And one?", "Five, I think.", source="sums"),
        talk("Bye", "See you soon!", source="sums"),
    )
    sizes = np.array(base.tokenizer.token_bytes(), np.int64)
    rows = pack_in_order(tokens.lengths, 257)
    builder = BatchBuilder(
        tokens,
        rows,
        256,
        "document",
        base.tokenizer.bos_id,
        device=torch.device("cpu"),
        dtype=torch.float32,
        device_rows=1,
    )
    data = ValidationSet(builder, sizes, device_rows=1)
    scores = evaluate(LossModule(base.model), data, World())
    expected = {"self": [0.0, 0.0, 0, 0], "sums": [0.0, 0.0, 0, 0]}
    for index in range(3):
        ids, mask = tokens.conversation(index)
        logits = base.model(torch.from_numpy(ids[None, :-1]))[0]
        losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids[1:]), reduction="none").detach().numpy()
        sums = expected[tokens.source_names[tokens.sources[index]]]
        for loss, token, flag in zip(losses, ids[1:], mask[1:], strict=True):
            if flag:
                sums[0] += loss
                sums[1] += loss * (sizes[token] > 0)
                sums[2] += sizes[token]
                sums[3] += 1
    for name, (loss, text_loss, num_bytes, num) in expected.items():
        assert scores[name].num_supervised == num
        assert scores[name].loss == pytest.approx(loss / num, rel=1e-5)
        assert scores[name].bpb == pytest.approx(text_loss / math.log(2) / num_bytes, rel=1e-5)
    assert scores[""].num_supervised == sum(scores[name].num_supervised for name in expected)
    whole = sum(scores[name].loss * scores[name].num_supervised for name in expected)
    assert scores[""].loss == pytest.approx(whole / scores[""].num_supervised)


def test_prompts_are_answered_by_the_likeliest_tokens():
    base = golden_base()
    prompts = render_prompts(base.tokenizer, ("Hi", "Who?"), max_tokens=5, context_len=256)
    answers = sample_answers(base.model, prompts, World())
    assert list(answers) == ["Hi", "Who?"]
    assert answers == sample_answers(base.model, prompts, World())
    assert not render_prompts(base.tokenizer, ("Hi", "Who?"), max_tokens=0, context_len=256).texts


def test_a_prompt_without_room_for_an_answer_is_refused_before_the_first_step():
    with pytest.raises(ConfigError, match="the model has room for 255"):
        render_prompts(golden_base().tokenizer, ["why " * 300], max_tokens=1, context_len=256)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (torch.zeros(5, dtype=torch.int32), "not a table of the lengths of 741 tokens"),
        ({"not": "a tensor"}, "not a table of the lengths"),
        (torch.tensor([*golden_base().tokenizer.token_bytes()[:-12], *[9] * 12]), "for 12 of 741 tokens"),
    ],
)
def test_lengths_of_tokens_are_the_tokenizers_and_a_table_that_differs_is_told(tmp_path, caplog, table, said):
    base = golden_base()
    assert np.array_equal(load_token_bytes(base), base.tokenizer.token_bytes())
    assert not caplog.text
    shutil.copytree(GOLDEN / "g5", tmp_path / "base")
    torch.save(table, tmp_path / "base/tokenizer/token_bytes.pt")
    assert np.array_equal(load_token_bytes(load_checkpoint(str(tmp_path / "base"))), base.tokenizer.token_bytes())
    assert said in caplog.text


def test_a_rising_validation_loss_is_told_with_its_figures_and_the_settings_that_help():
    settings = TrainSettings(base="base", data="data", out="out", epochs=3)
    progress = Progress(step=150, best_loss=0.327, best_step=100, num_worse=1, last_loss=0.345, evaluated_step=150)
    told = describe_rise(settings, progress) or ""
    assert "0.3270 at step 100, at step 150 it is 0.3450" in told
    assert "--epochs less than 3, --init-lr-frac lower than 0.8, or --early-stop" in told
    assert describe_rise(settings, Progress(step=100, best_loss=0.327, last_loss=0.327)) is None
    assert describe_rise(settings, Progress()) is None
