from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from nanosft.distributed import World
from nanosft.errors import ConfigError, DataError, StoreError
from nanosft.manifest import Manifest, Parent
from nanosft.store import open_store
from nanosft.store.local import LocalStore
from nanosft.train.optim.optimizer import MuonAdamW, OptimizerConfig, group_parameters
from nanosft.train.progress import Progress
from nanosft.train.state import StateSaver, list_states, restore
from tests.unit.train.make import golden_base

MANIFEST = Manifest(
    kind="state", name="run", objects=(), parents=(Parent(uri="file:///data", sha256="0" * 64),), settings={"seed": 0}
)


def make_optimizer(fill=None, **world):
    model = golden_base().model
    optimizer = MuonAdamW(group_parameters(model, OptimizerConfig(), width=64), **world)
    if fill is not None:
        optimizer.num_updates = 7
        with torch.no_grad():
            for index, param in enumerate(model.parameters()):
                param.fill_(fill + index)
            for index, tensor in enumerate(tensor for own in optimizer.state.values() for tensor in own.values()):
                tensor.fill_(fill - index)
    return optimizer


def tensors_of(optimizer):
    params = {name: param.detach() for group in optimizer.groups for name, param in group.params.items()}
    return params | {f"{name}.{key}": tensor for name, own in optimizer.state.items() for key, tensor in own.items()}


def save(store, optimizer, *steps, keep=2, attempt="abc"):
    with ThreadPoolExecutor(1) as executor:
        saver = StateSaver(store, World(), executor, optimizer, keep=keep, attempt=attempt, manifest=MANIFEST)
        for step in steps:
            saver.save(Progress(step=step, best_loss=1.5, best_key=f"best/step_{step:06d}-abc/model.pt"))
        saver.finish()


def test_a_state_comes_back_as_it_was(tmp_path):
    store, saved, fresh = open_store(str(tmp_path)), make_optimizer(0.5), make_optimizer()
    save(store, saved, 12)
    progress = restore(store, World(), fresh, expected=MANIFEST)
    assert progress == Progress(step=12, best_loss=1.5, best_key="best/step_000012-abc/model.pt")
    assert fresh.num_updates == 7
    for name, tensor in tensors_of(saved).items():
        assert torch.equal(tensor, tensors_of(fresh)[name]), name


def test_without_a_state_nothing_is_restored(tmp_path):
    assert restore(open_store(str(tmp_path)), World(), make_optimizer(), expected=MANIFEST) is None


def test_what_is_saved_is_a_copy_of_the_moment(tmp_path):
    store, optimizer = open_store(str(tmp_path)), make_optimizer(0.5)
    expected = {name: tensor.clone() for name, tensor in tensors_of(optimizer).items()}
    with ThreadPoolExecutor(1) as executor:
        gate = executor.submit(lambda: None)
        gate.result()
        saver = StateSaver(store, World(), executor, optimizer, keep=2, attempt="abc", manifest=MANIFEST)
        saver.save(Progress(step=1))
        for tensor in tensors_of(optimizer).values():
            tensor.zero_()
        saver.finish()
    fresh = make_optimizer()
    restore(store, World(), fresh, expected=MANIFEST)
    assert all(torch.equal(tensor, tensors_of(fresh)[name]) for name, tensor in expected.items())


def test_the_newest_states_are_kept_and_best_models_that_none_refers_to_are_deleted(tmp_path):
    store = open_store(str(tmp_path))
    for step in (2, 4, 6):
        store.write(f"best/step_{step:06d}-abc/model.pt", b"model")
    store.write("state/step_000003-dead/rank_00000.pt", b"left by a killed attempt")
    save(store, make_optimizer(0.5), 2, 4, 6, keep=2)
    assert [state.step for state in list_states(store)] == [6, 4]
    assert {info.key.split("/")[1] for info in store.list("state/")} == {"step_000004-abc", "step_000006-abc"}
    assert [info.key for info in store.list("best/")] == [
        "best/step_000004-abc/model.pt",
        "best/step_000006-abc/model.pt",
    ]


@pytest.mark.parametrize("damage", ["bytes", "missing", "manifest"])
def test_a_damaged_newest_state_falls_back_to_the_one_before_with_a_warning(tmp_path, caplog, damage):
    store = open_store(str(tmp_path))
    save(store, make_optimizer(0.5), 2)
    save(store, make_optimizer(9.5), 4)
    key = "state/step_000004-abc/rank_00000.pt"
    if damage == "missing":
        store.delete(key)
    elif damage == "bytes":
        data = bytearray(store.read(key))
        data[len(data) // 2] ^= 1
        store.write(key, bytes(data))
    else:
        store.write("state/step_000004-abc/manifest.json", b"{")
    fresh = make_optimizer()
    progress = restore(store, World(), fresh, expected=MANIFEST)
    assert progress is not None
    assert progress.step == 2
    assert float(tensors_of(fresh)["resid_lambdas"][0]) < 9
    assert "falling back to the" in caplog.text


def test_a_state_saved_behind_damaged_ones_is_not_deleted_for_them(tmp_path):
    store = open_store(str(tmp_path))
    save(store, make_optimizer(0.5), 6, 8)
    for step in (6, 8):
        store.delete(f"state/step_{step:06d}-abc/rank_00000.pt")
    assert restore(store, World(), make_optimizer(), expected=MANIFEST) is None
    save(store, make_optimizer(9.5), 2)
    progress = restore(store, World(), make_optimizer(), expected=MANIFEST)
    assert progress is not None
    assert progress.step == 2


def test_another_setting_or_other_data_is_refused(tmp_path):
    store = open_store(str(tmp_path))
    save(store, make_optimizer(0.5), 2)
    with pytest.raises(ConfigError, match="made with seed=0, now seed=1"):
        restore(
            store,
            World(),
            make_optimizer(),
            expected=MANIFEST.model_copy(update={"settings": {"seed": 1}}),
        )
    other = (Parent(uri="file:///data", sha256="1" * 64),)
    with pytest.raises(DataError, match="file:///data has changed since"):
        restore(store, World(), make_optimizer(), expected=MANIFEST.model_copy(update={"parents": other}))


class _FailingStore(LocalStore):
    """Refuses so many writes of best models."""

    num_failures = 0

    def open_write(self, key):
        if key.startswith("best/") and self.num_failures:
            self.num_failures -= 1
            raise StoreError(f"{key}: no space left")
        return super().open_write(key)


def save_with_failures(store, num_failures):
    store.num_failures = num_failures
    with ThreadPoolExecutor(1) as executor:
        saver = StateSaver(store, World(), executor, make_optimizer(0.5), keep=2, attempt="abc", manifest=MANIFEST)
        key = saver.save_best(torch.nn.Linear(2, 2), 4)
        saver.save(Progress(step=5, best_step=4, best_key=key))
        saver.finish()
    return key


def test_a_best_model_that_could_not_be_written_is_written_before_the_state_that_refers_to_it(tmp_path, caplog):
    store = _FailingStore(tmp_path)
    key = save_with_failures(store, 1)
    assert "the best model was not saved" in caplog.text
    assert store.exists(key)
    assert [state.step for state in list_states(store)] == [5]


def test_a_run_that_cannot_write_its_best_model_ends_with_an_error_and_without_a_state_that_refers_to_it(tmp_path):
    store = _FailingStore(tmp_path)
    with pytest.raises(StoreError, match="no space left"):
        save_with_failures(store, 100)
    assert not list_states(store)


def test_nothing_is_deleted_where_the_manifest_just_put_cannot_be_read(tmp_path, monkeypatch):
    """A flipped byte of it ended the run with `min()` of nothing."""
    store = open_store(str(tmp_path))
    monkeypatch.setattr("nanosft.train.state.list_states", lambda _store: [])
    save(store, make_optimizer(0.5), 2, 4)
    assert store.list_directory("state").names == ("step_000002-abc", "step_000004-abc")


def test_a_state_that_a_further_process_has_deleted_gets_no_manifest(tmp_path):
    """Held before its manifest, a process put one that named an object which its twin had deleted."""
    store = HeldStore(tmp_path)
    store.meanwhile = lambda: save(open_store(str(tmp_path)), make_optimizer(0.5), 12, 16, keep=1, attempt="twin")
    with pytest.raises(StoreError, match="another process of this run"):
        save(store, make_optimizer(0.5), 8)
    keys = [info.key for info in store.list()]
    assert keys == ["state/step_000016-twin/manifest.json", "state/step_000016-twin/rank_00000.pt"]


class HeldStore(LocalStore):
    """A process is held before its first manifest, while something else happens."""

    meanwhile: Callable[[], None] | None = None

    def write(self, key, data):
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        return super().write(key, data)
