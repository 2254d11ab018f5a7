import pytest

from nanosft.train.optim.schedule import Schedule, muon_momentum


@pytest.mark.parametrize("num_steps", [1, 2, 7, 12, 1000])
def test_the_default_is_the_formula_of_the_design(num_steps):
    half = num_steps // 2
    for step in range(num_steps):
        expected = 0.8 * (1.0 if step < half else 1.0 - (step - half) / (num_steps - half))
        assert Schedule().lr_scale(step, num_steps) == pytest.approx(expected, abs=1e-15)


def test_warm_up_rises_linearly_to_the_full_rate():
    schedule = Schedule(init_lr_frac=1.0, warmup_steps=4)
    assert [schedule.lr_scale(step, 100) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_falls_from_the_full_rate_to_the_final_fraction():
    schedule = Schedule(init_lr_frac=1.0, warmdown_frac=1.0, final_lr_frac=0.1, shape="cosine")
    scales = [schedule.lr_scale(step, 50) for step in range(51)]
    assert scales[0] == 1.0
    assert scales[25] == pytest.approx(0.55)
    assert scales[50] == pytest.approx(0.1)
    assert scales == sorted(scales, reverse=True)


def test_constant_never_falls():
    assert {Schedule(shape="constant").lr_scale(step, 9) for step in range(9)} == {0.8}


def test_muons_momentum_rises_over_300_steps():
    assert [muon_momentum(step) for step in (0, 150, 300, 9999)] == pytest.approx([0.85, 0.9, 0.95, 0.95])
