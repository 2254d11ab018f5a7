import shutil
from pathlib import Path

import pytest

from nanosft.errors import ConfigError, DataError, Interrupted
from nanosft.nanochat import save_tokenizer
from nanosft.nanochat.tokenizer import load_tokenizer, train_tokenizer
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.train import stage
from nanosft.train.stage import run_train
from tests.unit.train.make import GOLDEN, talk


def test_stopping_early_without_validation_data_is_refused_before_the_first_step(tmp_path):
    data, out = tmp_path / "data.jsonl", str(tmp_path / "out")
    data.write_bytes(talk("Hi", "Hello"))
    settings = TrainSettings(base=str(GOLDEN / "g5"), data=str(data), out=out, device="cpu", early_stop=2)
    with pytest.raises(ConfigError, match="--early-stop needs validation data"):
        run_train(settings)
    assert not {"metrics.jsonl", "state"} & set(open_store(out).list_directory().names)


@pytest.mark.parametrize("moment", ["prepare_data", "_train"])
def test_a_tokenizer_that_is_replaced_while_a_run_goes_on_is_an_error(tmp_path, monkeypatch, moment):
    """Data was rendered with one tokenizer for a model of another, or another was put beside the finished model."""
    base, data = tmp_path / "base", tmp_path / "data.jsonl"
    shutil.copytree(GOLDEN / "g5", base)
    data.write_bytes(b"".join(talk(f"What is {n} and one?", f"It is {n + 1}.") for n in range(9)))
    work = getattr(stage, moment)

    def replace_and_work(*args, **kwargs):
        save_tokenizer(str(base), train_tokenizer(["Another one, of other words."] * 9, 300))
        return work(*args, **kwargs)

    monkeypatch.setattr(stage, moment, replace_and_work)
    settings = TrainSettings(base=str(base), data=str(data), out=str(tmp_path / "out"), device="cpu", max_steps=1)
    with pytest.raises(DataError, match=r"tokenizer\.pkl: was replaced while the run went on: put the tokenizer back"):
        run_train(settings)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_run_resumed_beside_another_tokenizer_is_refused_before_a_step(tmp_path, monkeypatch):
    """The states of a base without a manifest said nothing of it: rows of both tokenizers trained one model."""
    base, data, out = tmp_path / "base", tmp_path / "data.jsonl", tmp_path / "out"
    shutil.copytree(GOLDEN / "g5", base)
    data.write_bytes(b"".join(talk(f"What is {n} and one?", f"It is {n + 1}.") for n in range(9)))
    settings = TrainSettings(base=str(base), data=str(data), out=str(out), device="cpu", max_steps=2, save_every=1)

    def stop(*_args: object) -> None:
        raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "_finish", stop)
        with pytest.raises(Interrupted):
            run_train(settings)
    own = (base / "tokenizer" / "tokenizer.pkl").read_bytes()
    other = train_tokenizer([Path(__file__).read_text()], load_tokenizer(str(base)).vocab_size)
    save_tokenizer(str(base), other)
    with pytest.raises(DataError, match=r"step_000001-\w+: was trained with another tokenizer .*: put that one back"):
        run_train(settings)
    assert not (out / "manifest.json").exists()
    (base / "tokenizer" / "tokenizer.pkl").write_bytes(own)
    assert run_train(settings).step == 2
