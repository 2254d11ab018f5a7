"""What the contract suites of generate share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.batching import put_in_place_of_http
from tests.stub_batches import BatchStub


@pytest.fixture
def out(tmp_path: Path) -> str:
    """A prefix that nobody has used."""
    return str(tmp_path / "set")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[BatchStub], BatchStub]:
    """Has generate ask a stub of the batch service, which it returns."""
    return lambda stub: put_in_place_of_http(monkeypatch, stub)
