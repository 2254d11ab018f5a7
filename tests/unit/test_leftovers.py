"""What killed writers have left of a local prefix, the next run of the same command takes away, whatever it is."""

from pathlib import Path

import pytest

from tests.contract.test_changed_inputs import STAGES, write


@pytest.mark.parametrize("stage", STAGES)
def test_the_next_run_leaves_no_temporary_file_and_no_empty_folder(tmp_path: Path, stage: str) -> None:
    run, _, part = STAGES[stage]
    data, out = tmp_path / "data", tmp_path / "out"
    write(str(data), 1, 2, 3)
    for name in ("", "state", "deep/er", "clean/deep"):
        folder = out / part / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".nanosft-tmp-0123456789abcdef").write_bytes(b"half")
    (out / ".nanosft-tmp-fedcba9876543210").write_bytes(b"half")
    (out / part / "state/step_000007-0a1b2c3d").mkdir(parents=True)
    run(str(data), str(out), tmp_path)
    assert (out / part / "manifest.json").exists()
    left = [path for path in out.rglob("*") if path.name.startswith(".") or (path.is_dir() and not any(path.iterdir()))]
    assert not left
