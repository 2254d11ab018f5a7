"""What the issue of mix asks to be found, planted among real conversations."""

from pathlib import Path

from tests.planted import find_planted


def test_every_planted_copy_and_every_hidden_held_out_row_is_found(tmp_path: Path):
    found = find_planted(tmp_path)
    assert (found.num_exact_found, found.num_near_found, found.num_held_out_found) == (300, 300, 299)
