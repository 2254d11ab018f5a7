"""The parts of `make gpu-test` that a CPU can run."""

import subprocess
import sys

import pytest
import torch

from nanosft.nanochat.generations import ModelConfig
from tests.gpu.__main__ import check_training
from tests.gpu.checks import check_attention
from tests.gpu.speed import measure
from tests.gpu.training import check_collectives, check_resume, check_snapshot, check_trajectory

CPU = torch.device("cpu")
_NEEDS = (
    "import sys, tests.gpu.__main__ as m; print(m.main()); print(sorted(n for n in sys.modules if n in {others!r}))"
)
_OTHERS = ("pydantic", "boto3", "orjson", "safetensors", "httpx", "typer")


def test_the_masked_kernel_agrees_with_the_cpus_own():
    checks = check_attention(CPU, kernel="dense", lengths=(150, 1, 100))
    assert len(checks) == 8
    assert all(check["ok"] for check in checks), checks


def test_a_wrong_result_fails_the_check(monkeypatch):
    monkeypatch.setattr("tests.gpu.checks.PackedLayout._make_mask", lambda *_: torch.ones(1, 1, 251, 251).bool().tril())
    checks = check_attention(CPU, kernel="dense", lengths=(150, 1, 100))
    assert not any(check["ok"] for check in checks)


def test_a_speed_is_measured():
    config = ModelConfig(64, 128, 1, 2, 1, 32, "L")
    found = measure(config, CPU, 8, scope="row", compiled=False, row_len=64)
    assert found["supervised_per_s"] > 0
    assert found["mfu"] is None


def test_without_a_gpu_it_says_so_in_one_line_and_needs_no_package_but_torch():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code = _NEEDS.format(others=_OTHERS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line, exit_code, others = done.stdout.splitlines()
    assert line == "no GPU that torch can use: nothing was checked"
    assert exit_code == "0"
    assert others == "[]"


def test_the_checks_of_the_train_step_hold_on_a_cpu(monkeypatch):
    monkeypatch.setattr("tests.gpu.training.TOLERANCES", {"float32": 1e-5})
    checks = [*check_trajectory(CPU), check_resume(CPU), check_snapshot(CPU), check_collectives(CPU, "gloo")]
    assert [check["name"] for check in checks if not check["ok"]] == []
    assert checks[1]["value"] == 0


def test_training_on_a_lent_machine_without_our_packages_is_left_out_and_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "tests.gpu.training", None)
    (left,) = check_training(torch.device("cpu"))
    assert left["left_out"] == "no tests.gpu.training"
