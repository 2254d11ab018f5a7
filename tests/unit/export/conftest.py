"""Exports of the golden models, made once: transformers takes seconds to import."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="the extra `export` is not installed")

from nanosft.export.stage import export
from nanosft.settings.export import ExportSettings

GOLDEN = Path(__file__).parents[2] / "golden" / "nanochat"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with g1, g3 and g5 (and g5 in bfloat16, as g5-bfloat16), each checked by itself as it was made."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("exported")
    for name in ("g1", "g3", "g5"):
        export(ExportSettings(model=str(GOLDEN / name), out=str(out / name), license="mit"))
    export(ExportSettings(model=str(GOLDEN / "g5"), out=str(out / "g5-bfloat16"), dtype="bfloat16"))
    return out
