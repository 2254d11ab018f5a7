import json
from concurrent.futures import ThreadPoolExecutor

import torch

from nanosft.store import open_store
from nanosft.train.metrics import METRICS_KEY, MetricsLog, find_peak_flops


def lines_of(store):
    return [json.loads(line) for line in store.read(METRICS_KEY).splitlines()]


def test_a_resumed_run_cuts_the_lines_after_its_state_and_doubles_none(tmp_path):
    store = open_store(str(tmp_path))
    with ThreadPoolExecutor(1) as executor:
        log = MetricsLog(store, executor, step=0)
        for step in range(1, 6):
            log.write({"step": step, "loss": step / 10})
        log.write({"step": 5, "val_loss": 1.0})
        log.close()
        log = MetricsLog(store, executor, step=3)
        log.write({"step": 4, "loss": 40.0})
        written = log.close()
    assert [(line["step"], line["loss"]) for line in lines_of(store)] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 40.0)]
    assert written.size_bytes == len(store.read(METRICS_KEY))


def test_a_run_that_starts_anew_forgets_the_lines_of_one_that_saved_nothing(tmp_path):
    store = open_store(str(tmp_path))
    store.write(METRICS_KEY, b'{"step":1}\n')
    with ThreadPoolExecutor(1) as executor:
        log = MetricsLog(store, executor, step=0)
        log.write({"step": 2})
        log.close()
    assert lines_of(store) == [{"step": 2}]


def test_sinks_get_every_number_by_its_path(tmp_path):
    class Sink:
        def __init__(self):
            self.got = []

        def write(self, step, values):
            self.got.append((step, dict(values)))

        def close(self):
            self.got.append("closed")

    sink = Sink()
    with ThreadPoolExecutor(1) as executor:
        log = MetricsLog(open_store(str(tmp_path)), executor, step=0, sinks=(sink,))
        log.write({"step": 3, "loss": 0.5, "grad_norm": {"lm_head": 2.0}, "samples": {"Hi": "text"}})
        log.close()
    assert sink.got == [(3, {"loss": 0.5, "grad_norm/lm_head": 2.0}), "closed"]


def test_the_peak_is_measured_where_no_data_sheet_knows_it():
    assert find_peak_flops(torch.device("cpu"), torch.float32) > 1e8


def test_metrics_that_cannot_be_written_stop_nothing_and_are_written_later(tmp_path, caplog):
    blocker = tmp_path / "out"
    blocker.write_bytes(b"a file in the way of the directory")
    with ThreadPoolExecutor(1) as executor:
        log = MetricsLog(open_store(str(blocker)), executor, step=0)
        log.write({"step": 1})
        log.flush()
        executor.submit(blocker.unlink).result()  # the one thread has tried and failed before this
        log.flush()
        log.close()
    assert "the metrics were not written" in caplog.text
    assert lines_of(open_store(str(blocker))) == [{"step": 1}]
