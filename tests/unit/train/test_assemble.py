import shutil

import pytest
import torch

from nanosft.errors import ConfigError, DataError
from nanosft.settings.train import TrainSettings
from nanosft.train.assemble import make_validation
from nanosft.train.data.dataset import Data
from nanosft.train.distributed import World
from nanosft.train.optim.hyperparameters import HyperParameters
from tests.unit.train.make import GOLDEN, golden_base, talk, tokens_of


def make(base_uri, *, has_val, **changes):
    base, tokens = golden_base(), tokens_of(talk("Hi", "Hello"))
    settings = TrainSettings(base=str(base_uri), data="data", out="out", **changes)
    data = Data(tokens, tokens if has_val else None, (), ())
    return make_validation(settings, HyperParameters.resolve(settings, base.meta, where="base"), data, base, World())


def test_stopping_early_without_validation_data_is_refused_before_the_first_step():
    with pytest.raises(ConfigError, match="--early-stop needs validation data"):
        make(GOLDEN / "g5", has_val=False, early_stop=2)
    assert make(GOLDEN / "g5", has_val=False) is None


@pytest.mark.parametrize("table", [torch.zeros(5, dtype=torch.int32), {"not": "a tensor"}])
def test_token_lengths_of_another_tokenizer_are_refused(tmp_path, table):
    shutil.copytree(GOLDEN / "g5/tokenizer", tmp_path / "tokenizer")
    torch.save(table, tmp_path / "tokenizer/token_bytes.pt")
    with pytest.raises(DataError, match=r"token_bytes\.pt: not a table of the lengths"):
        make(tmp_path, has_val=True)
