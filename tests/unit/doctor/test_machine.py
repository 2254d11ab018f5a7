"""Packages, device, memory, disk: what each look says when it is right and when it is not."""

from types import SimpleNamespace

import pytest
import torch

from nanosft.doctor import machine
from nanosft.doctor.finding import Finding, choose_exit_code, look, write_lines
from nanosft.doctor.machine import check_device, check_disk, check_memory, check_shared_memory, check_versions
from nanosft.errors import ConfigError

GIB = 1 << 30


def test_this_installation_is_whole():
    found = check_versions()
    assert found.status == "ok"
    assert f"torch {torch.__version__}" in found.found


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("no-such-package>=1", "no-such-package is missing"),
        ("torch>=99.1", "torch is"),
        ("torch==1.0.0", "torch is"),
        ('no-such-package; extra == "serve"', None),
        ("torch", None),
    ],
)
def test_a_package_that_is_missing_or_too_old_is_an_error(monkeypatch, requirement, said):
    monkeypatch.setattr(machine, "requires", lambda _: [requirement])
    found = check_versions()
    assert (found.status, found.exit_code) == (("error", 2) if said else ("ok", 0))
    assert said is None or said in found.found
    assert not found.remedy or found.remedy.startswith("pip install")


def test_the_cpu_and_its_attention_are_tried():
    found = check_device("cpu")
    assert found.status == "ok"
    assert "float32, attention: blocks of 128 queries" in found.found


def test_attention_that_fails_is_an_error(monkeypatch):
    def fail(*_):
        raise RuntimeError("no kernel image\nmore")

    monkeypatch.setattr(machine, "probe_attention", fail)
    found = check_device("cpu")
    assert found.status == "error"
    assert found.found.endswith("attention fails: no kernel image")


def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "_NVIDIA", tmp_path)  # there is a driver
    assert check_device("auto").status == "warning"
    found = check_device("cuda")
    assert (found.status, found.exit_code) == ("error", ConfigError.exit_code)
    assert f"pip install torch=={torch.__version__.partition('+')[0]}" in found.remedy


@pytest.mark.parametrize(("free", "status"), [(GIB // 2, "warning"), (3 * GIB, "ok")])
def test_little_memory_is_a_warning(monkeypatch, free, status):
    monkeypatch.setattr(machine, "find_free_memory_bytes", lambda: free)
    monkeypatch.setattr(machine, "find_memory_bytes", lambda: 4 * GIB)
    found = check_memory()
    assert found.status == status
    assert f"{free / GIB:.1f} GiB free of 4.0 GiB" in found.found


@pytest.mark.parametrize(("free", "status"), [(GIB, "warning"), (3 * GIB, "ok")])
def test_little_disk_is_a_warning(monkeypatch, tmp_path, free, status):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    assert check_disk(str(tmp_path / "new")).status == status


def test_a_directory_that_cannot_be_written_to_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    found = check_disk(str(tmp_path / "file"))
    assert (found.status, found.exit_code) == ("error", 2)
    assert found.remedy.startswith("--work-dir")


@pytest.mark.parametrize(("total", "status"), [(64 << 20, "warning"), (8 * GIB, "ok")])
def test_dockers_64_mib_of_shared_memory_are_a_warning_beside_gpus(monkeypatch, tmp_path, total, status):
    assert torch.cuda.is_available() or check_shared_memory() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=total))
    found = check_shared_memory()
    assert found is not None
    assert found.status == status


def test_errors_that_stay_decide_the_exit_code_before_those_that_may_pass():
    ok, warning = Finding("a", "ok", ""), Finding("b", "warning", "")
    passing, staying = Finding("c", "error", "", "", 75), Finding("d", "error", "", "", 4)
    assert choose_exit_code([ok, warning]) == 0
    assert choose_exit_code([ok, passing]) == 75
    assert choose_exit_code([passing, staying, warning]) == 4


def test_a_line_has_its_remedy_below():
    def fail():
        raise ConfigError("no bucket")

    lines = list(write_lines([look("listing", "aws s3 mb", fail), look("memory", "", lambda: "much")]))
    assert [line.split() for line in lines] == [
        ["error", "listing", "no", "bucket"],
        ["->", "aws", "s3", "mb"],
        ["ok", "memory", "much"],
    ]
