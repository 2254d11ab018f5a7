"""A generation is told by a state dict's keys; windows and parameters follow from it."""

from typing import Any

import pytest

from nanosft.errors import DataError
from nanosft.nanochat.generations import (
    GENERATIONS,
    ModelConfig,
    compute_windows,
    detect_generation,
    estimate_flops_per_token,
    parameter_shapes,
    parse_model_config,
)

SIZES: dict[str, Any] = {
    "sequence_len": 2048, "vocab_size": 65536, "n_layer": 12, "n_head": 6, "n_kv_head": 6, "n_embd": 768
}  # fmt: skip


def make_config(**changes: Any) -> ModelConfig:
    return parse_model_config({**SIZES, **changes}, where="meta")


@pytest.mark.parametrize("name", GENERATIONS)
def test_the_parameters_of_a_generation_tell_it(name: str) -> None:
    shapes = parameter_shapes(make_config(), GENERATIONS[name], 65536)
    gates = [shape for key, shape in shapes.items() if "ve_gate" in key]
    assert detect_generation(shapes, gates[0] if gates else None, where="x").name == name


@pytest.mark.parametrize(
    ("keys", "gate", "match"),
    [({"value_embeds.1.weight"}, None, "no ve_gate"), ({"value_embeds.1.weight"}, (6, 16), "12 or 32 channels")],
)
def test_keys_of_no_generation_are_refused(keys: set[str], gate: tuple[int, ...] | None, match: str) -> None:
    with pytest.raises(DataError, match=match):
        detect_generation(keys, gate, where="x")


@pytest.mark.parametrize(
    ("name", "context", "expected"),
    [("g2", 2048, 1024), ("g3", 2048, 1024), ("g4", 2048, 768), ("g5", 2048, 512), ("g5", 512, 128), ("g4", 512, 256)],
)
def test_short_windows_are_what_each_generation_makes_of_the_context(name: str, context: int, expected: int) -> None:
    windows = compute_windows(make_config(sequence_len=context, window_pattern="SSSL"), GENERATIONS[name])
    assert windows == ((expected,) * 3 + (context,)) * 3


def test_the_last_layer_always_sees_the_whole_context() -> None:
    assert compute_windows(make_config(n_layer=3, window_pattern="S"), GENERATIONS["g5"]) == (512, 512, 2048)


def test_without_a_pattern_the_context_is_full() -> None:
    assert compute_windows(make_config(n_layer=2), GENERATIONS["g1"]) == (None, None)
    assert compute_windows(make_config(n_layer=2), GENERATIONS["g2"]) == (2048, 2048)


@pytest.mark.parametrize("table", [SIZES, {**SIZES, "window_pattern": "SSSL"}])
def test_model_config_is_written_back_unchanged(table: dict[str, Any]) -> None:
    assert parse_model_config(table, where="meta").to_dict() == table


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (None, "must be an object"),
        ({**SIZES, "n_layer": None}, "n_layer must be 1 to 1,024, found None"),
        ({key: item for key, item in SIZES.items() if key != "n_embd"}, "n_embd must be 1 to 65,536, found None"),
        ({**SIZES, "n_head": True}, "n_head must be"),
        ({**SIZES, "n_kv_head": 4}, "do not divide"),
        ({**SIZES, "window_pattern": "SXL"}, "letters S and L"),
        ({**SIZES, "moe_experts": 8}, "'moe_experts', which no known generation"),
    ],
)
def test_an_impossible_model_config_names_the_key(value: object, match: str) -> None:
    with pytest.raises(DataError, match=f"^meta.json: model_config.*{match}"):
        parse_model_config(value, where="meta.json")


def test_flops_count_products_and_attended_positions() -> None:
    config = make_config(n_layer=1, n_kv_head=3)
    matrices = 768 * 768 * 2 + 768 * 384 * 2 + 8 * 768 * 768
    attended = sum(range(1, 101)) / 100
    expected = 6 * (matrices + 768 * 65536) + 12 * 768 * attended
    assert estimate_flops_per_token(config, GENERATIONS["g1"], 100) == pytest.approx(expected)


def test_flops_of_a_window_shorter_than_the_row() -> None:
    config = make_config(n_layer=1, sequence_len=10)
    attended = sum(min(position + 1, 11) for position in range(100)) / 100
    with_head = estimate_flops_per_token(config, GENERATIONS["g5"], 100)
    without = estimate_flops_per_token(config, GENERATIONS["g5"], 100, num_head_tokens=0.0)
    assert with_head - without == pytest.approx(6 * 768 * 65536)
    assert without == pytest.approx(6 * 12 * 768 * 768 + 12 * 768 * attended)
