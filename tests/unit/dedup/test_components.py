from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.dedup import Components


def find_names(folder: Path, pairs: list[tuple[int, int]], **sizes: int) -> list[int]:
    components = Components(folder / "file", 31, **sizes)
    components.unite(np.array(pairs, np.uint32).reshape(-1, 2))
    found = list(range(31))
    for rows, others in components.iter_members():
        for row, name in zip(rows.tolist(), others.tolist(), strict=True):
            found[row] = name
    components.close()
    return found


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_components_are_those_of_a_search(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]):
    small = {"resident_bytes": 100, "chunk_rows": 8, "chunk_pairs": 5}
    found, again = (find_names(tmp_path_factory.mktemp("c"), pairs, **sizes) for sizes in ({}, small))
    names = list(range(31))
    for _ in names:
        for a, b in pairs:
            names[a] = names[b] = min(names[a], names[b])
    assert found == again == names
