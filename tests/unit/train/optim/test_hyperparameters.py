import pytest

from nanosft.errors import ConfigError
from nanosft.settings.train import TrainSettings
from nanosft.train.optim.hyperparameters import HyperParameters

META = {
    "max_seq_len": 512,
    "device_batch_size": 8,
    "total_batch_size": 4096,
    "user_config": {"embedding_lr": 0.25, "unembedding_lr": 0.008, "max_seq_len": 9},
}


def make(**settings) -> TrainSettings:
    return TrainSettings(base="base", data="data", out="out", **settings)


def test_the_base_decides_what_is_not_given():
    hyper = HyperParameters.resolve(make(), META, where="meta")
    assert (hyper.row_len, hyper.device_rows, hyper.total_batch_size) == (512, 8, 4096)
    assert (hyper.optimizer.embedding_lr, hyper.optimizer.unembedding_lr) == (0.25, 0.008)
    assert hyper.optimizer.matrix_lr == 0.02


def test_every_hyper_parameter_can_be_given():
    given = make(
        max_seq_len=128,
        device_batch_size=2,
        total_batch_size=256,
        matrix_lr=0.1,
        embedding_lr=0.2,
        unembedding_lr=0.3,
        scalar_lr=0.4,
        weight_decay=0.5,
        init_lr_frac=0.6,
        warmup_steps=7,
        warmdown_frac=0.8,
        final_lr_frac=0.9,
        lr_shape="cosine",
    )
    hyper = HyperParameters.resolve(given, META, where="meta")
    assert (hyper.row_len, hyper.device_rows, hyper.total_batch_size) == (128, 2, 256)
    rates = hyper.optimizer
    assert (rates.matrix_lr, rates.embedding_lr, rates.unembedding_lr, rates.scalar_lr) == (0.1, 0.2, 0.3, 0.4)
    assert rates.weight_decay == 0.5
    schedule = hyper.schedule
    assert (schedule.init_lr_frac, schedule.warmup_steps, schedule.warmdown_frac) == (0.6, 7, 0.8)
    assert (schedule.final_lr_frac, schedule.shape) == (0.9, "cosine")


def test_a_base_that_does_not_say_asks_for_the_option():
    with pytest.raises(ConfigError, match=r"meta names no max_seq_len: give --max-seq-len"):
        HyperParameters.resolve(make(), {}, where="meta")


def test_an_old_meta_file_is_filled_with_nanochats_defaults_of_its_time():
    """As published with d32: sizes alone, or a configuration in which -1 stands for what a program would choose."""
    old = {"step": 650, "model_config": {"sequence_len": 2048}}
    for meta in (old, old | {"user_config": {"total_batch_size": -1, "device_batch_size": 0}}):
        hyper = HyperParameters.resolve(make(), meta, where="meta")
        assert (hyper.row_len, hyper.device_rows, hyper.total_batch_size) == (2048, 32, 524_288)


def test_epochs_and_steps_exclude_each_other():
    with pytest.raises(ValueError, match="exclude each other"):
        make(epochs=2, max_steps=10)


def test_stopping_early_without_evaluations_is_refused():
    with pytest.raises(ValueError, match="--eval-every 0 makes none"):
        TrainSettings(base="base", data="data", out="out", early_stop=2, eval_every=0)
