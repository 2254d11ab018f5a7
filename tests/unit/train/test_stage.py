import pytest

from nanosft.errors import ConfigError
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.train.stage import run_train
from tests.unit.train.make import GOLDEN, talk


def test_stopping_early_without_validation_data_is_refused_before_the_first_step(tmp_path):
    data, out = tmp_path / "data.jsonl", str(tmp_path / "out")
    data.write_bytes(talk("Hi", "Hello"))
    settings = TrainSettings(base=str(GOLDEN / "g5"), data=str(data), out=out, device="cpu", early_stop=2)
    with pytest.raises(ConfigError, match="--early-stop needs validation data"):
        run_train(settings)
    assert not {"metrics.jsonl", "state"} & set(open_store(out).list_directory().names)
