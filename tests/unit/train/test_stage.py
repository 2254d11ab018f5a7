import shutil

import pytest

from nanosft.errors import ConfigError, DataError
from nanosft.nanochat import save_tokenizer
from nanosft.nanochat.tokenizer import train_tokenizer
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
