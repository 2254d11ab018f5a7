import pytest

from nanosft import waiting
from nanosft.waiting import count_running_others, set_library_defaults


@pytest.mark.parametrize(("num_others", "rounds"), [(0, "10000"), (1000, "0")])
def test_threads_spin_on_quiet_cores_and_sleep_on_busy_ones(monkeypatch, num_others, rounds):
    monkeypatch.setattr(waiting, "count_running_others", lambda: num_others)
    environ: dict[str, str] = {}
    set_library_defaults(environ)
    assert environ == {"GOMP_SPINCOUNT": rounds, "PYTORCH_ALLOC_CONF": "expandable_segments:True"}


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}])
def test_what_the_user_has_set_stays(own):
    own |= {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}
    set_library_defaults(environ := dict(own))
    assert environ == own


def test_others_are_counted_without_this_one_and_none_where_the_system_does_not_say(tmp_path):
    assert count_running_others() >= 0
    file = tmp_path / "loadavg"
    file.write_text("0.52 1.10 1.86 4/212 15955\n")
    assert count_running_others(file) == 3
    file.write_text("?")
    assert count_running_others(file) == 0
    assert count_running_others(tmp_path / "missing") == 0
