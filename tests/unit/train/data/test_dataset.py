import pytest

from nanosft.errors import DataError, Interrupted
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.train.data.dataset import prepare_data, split_objects
from tests.unit.train.make import GOLDEN, talk


def write(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(talk("Hi", name))
    return str(folder)


def names_of(objects):
    return [item.key.rpartition("/")[2] for item in objects]


def split(uri, val_uri=None):
    return tuple(map(names_of, split_objects(uri, val_uri)))


def test_what_is_not_named_for_validation_is_trained_on_whatever_its_name(tmp_path):
    data = write(tmp_path / "data", "train-00000.jsonl", "identity.jsonl", "val-00000.jsonl")
    assert split(data) == (["identity.jsonl", "train-00000.jsonl"], ["val-00000.jsonl"])


def test_a_file_is_trained_on_whatever_its_name(tmp_path):
    data = write(tmp_path / "data", "val-00000.jsonl", "train-00000.jsonl")
    assert split(f"{data}/val-00000.jsonl") == (["val-00000.jsonl"], [])


def test_validation_data_that_is_a_whole_mixture_means_its_validation_part(tmp_path):
    data, mixture = write(tmp_path / "a", "a.jsonl"), write(tmp_path / "b", "train-00000.jsonl", "val-00000.jsonl")
    assert split(data, mixture) == (["a.jsonl"], ["val-00000.jsonl"])
    assert split(mixture, data) == (["train-00000.jsonl"], ["a.jsonl"])


def test_nothing_to_train_on_is_said(tmp_path):
    with pytest.raises(DataError, match="nothing is left to train on"):
        split(write(tmp_path / "data", "val-00000.jsonl", "val-00001.jsonl"))


@pytest.mark.parametrize("num_looks", [0, 1])
def test_a_signal_ends_hashing_and_tokenising_and_leaves_no_tokens(tmp_path, num_looks):
    store = open_store(str(tmp_path / "out"))
    settings = TrainSettings(
        base=str(GOLDEN / "g5"), data=write(tmp_path / "data", "a.jsonl"), out=str(tmp_path / "out")
    )
    looks = iter([None] * num_looks)

    def look() -> None:
        if next(looks, 15) == 15:
            raise Interrupted(15)

    with pytest.raises(Interrupted):
        prepare_data(settings, store, settings.base, capacity=257, look=look)
    assert next(looks, 15) == 15
    assert not list(store.list("plan/"))
