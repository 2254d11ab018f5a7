"""The run protocol of an output prefix: finished with the same settings, begun, committed with the manifest last."""

import subprocess
import sys

import orjson
import pytest

from nanosft.data import OutputPrefix, list_data_objects
from nanosft.errors import ConfigError, DataError
from nanosft.manifest import Manifest, ManifestObject, Parent
from nanosft.store import open_store

MANIFEST = Manifest(kind="mixture", name="tea", objects=(), settings={"herbs": ["mint"]})


@pytest.fixture
def prefix(tmp_path):
    return OutputPrefix(open_store(str(tmp_path / "out")), "brew", {"herbs": ["mint"]})


def test_what_is_finished_with_the_same_settings_is_found(prefix):
    assert prefix.find_finished() is None
    prefix.commit(MANIFEST)
    assert prefix.find_finished() == MANIFEST


def test_what_was_made_with_others_is_refused_by_the_first_that_differs(prefix):
    prefix.commit(MANIFEST)
    with pytest.raises(ConfigError, match=r"made with herbs=\['mint'\], now herbs=\['sage'\]"):
        OutputPrefix(prefix.store, "brew", {"herbs": ["sage"], "milk": True}).find_finished()


def test_readers_refuse_what_is_begun_and_believe_what_is_committed(prefix):
    prefix.store.write("a.jsonl", b"")
    with prefix.writing(()):
        prefix.store.write("b.jsonl", b"{}")
        with pytest.raises(DataError, match="unfinished"):
            list_data_objects(prefix.store.uri)
        prefix.commit(MANIFEST, is_own=lambda key: key == "a.jsonl")
    assert list_data_objects(prefix.store.uri) == []
    assert [info.key for info in prefix.store.list()] == ["b.jsonl", "manifest.json"]


def test_only_keys_of_its_own_are_cleaned_up(prefix):
    for key in ("own-1.jsonl", "foreign.jsonl", "deep/own-1.jsonl"):
        prefix.store.write(key, b"{}")
    prefix.commit(MANIFEST, is_own=lambda key: key.startswith("own-"))
    assert [info.key for info in prefix.store.list()] == ["deep/own-1.jsonl", "foreign.jsonl", "manifest.json"]


def test_a_held_process_deletes_nothing_of_what_another_has_finished_meanwhile(prefix):
    named = prefix.store.write("own-1.jsonl", b"{}")
    item = ManifestObject(key=named.key, size_bytes=named.size_bytes, sha256=named.sha256)
    manifest = MANIFEST.model_copy(update={"objects": (item,)})
    with prefix.writing(()) as held:
        assert held is None
        prefix.commit(manifest, is_own=lambda key: key.startswith("own-"))  # the other
        with prefix.writing(()) as finished:
            assert finished == manifest
        prefix.commit(MANIFEST, is_own=lambda key: key.startswith("own-"))
    assert prefix.find_finished() == manifest


def test_two_processes_with_other_settings_or_inputs_do_not_both_write_to_one_prefix(prefix):
    other = OutputPrefix(prefix.store, "brew", {"herbs": ["sage"]})
    with prefix.writing(()):
        with (
            pytest.raises(ConfigError, match=r"herbs=\['mint'\], not \['sage'\], is under way here"),
            other.writing(()),
        ):
            pytest.fail("both write")
        with (
            pytest.raises(ConfigError, match="a run with other inputs is under way"),
            prefix.writing([Parent(uri="in", sha256="0" * 64)]),
        ):
            pytest.fail("both write")
    with pytest.raises(ZeroDivisionError), prefix.writing(()):
        _ = 1 / 0
    prefix.store.delete("state/claim.json")
    with other.writing(()):
        pass


def test_a_claim_is_given_up_by_a_process_that_ends_on_an_error(prefix):
    with pytest.raises(DataError), prefix.writing(()):
        raise DataError("a bad line")
    with OutputPrefix(prefix.store, "brew", {"herbs": ["sage"]}).writing(()) as finished:
        assert finished is None


def test_a_claim_of_a_killed_process_is_taken_over_and_one_of_a_live_process_is_not(prefix, caplog):
    """After SIGKILL other settings were refused until `state/claim.json` was deleted by hand."""
    program = (
        "import os, sys, time\n"
        "from nanosft.data import OutputPrefix\n"
        "from nanosft.store import open_store\n"
        "with OutputPrefix(open_store(sys.argv[1]), 'brew', {'herbs': ['mint']}).writing(()):\n"
        "    print('claimed', flush=True)\n"
        "    time.sleep(60)\n"
    )
    root = prefix.store.uri
    other = OutputPrefix(prefix.store, "brew", {"herbs": ["sage"]})
    with subprocess.Popen([sys.executable, "-c", program, root], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        with pytest.raises(ConfigError, match=r"herbs=\['mint'\], not \['sage'\], is under way"), other.writing(()):
            pytest.fail("both write")
        process.kill()
    with other.writing(()) as finished:
        assert finished is None
    assert "herbs=['mint'], not ['sage'], was killed here: this one begins" in caplog.text


@pytest.mark.parametrize("host", [None, "another machine"])
def test_a_claim_that_no_kernel_can_tell_of_stays_and_the_message_says_what_to_delete(prefix, host):
    claim = {"command": "brew", "settings": {"herbs": ["sage"]}, "parents": []} | ({"host": host} if host else {})
    prefix.store.write("state/claim.json", orjson.dumps(claim, option=orjson.OPT_SORT_KEYS))
    with (
        pytest.raises(ConfigError, match=r"claim\.json: .*, where no such run is alive on any machine, delete this"),
        prefix.writing(()),
    ):
        pytest.fail("both write")
    twin = OutputPrefix(prefix.store, "brew", {"herbs": ["sage"]})
    with twin.writing(()) as finished:
        assert finished is None
        assert "host" not in orjson.loads(prefix.store.read("state/claim.json"))


def test_finished_is_what_has_all_that_its_manifest_names(prefix):
    items = tuple(ManifestObject(key=f"{n:02}.jsonl", size_bytes=2, sha256="0" * 64) for n in range(20))
    for num, size in ((1, 2), (1, 3), (20, 2), (20, 3)):
        manifest = MANIFEST.model_copy(update={"objects": items[:num]})
        for item in manifest.objects:
            prefix.store.write(item.key, b"x" * size)
        prefix.store.write("manifest.json", manifest.to_bytes())
        if size == 2:
            assert prefix.find_finished() == manifest
        else:
            with pytest.raises(DataError, match=r"has 3 bytes, not 2, as manifest\.json says: delete"):
                prefix.find_finished()
        prefix.store.delete("00.jsonl")
        with pytest.raises(DataError, match=r"00\.jsonl: is not there, as manifest\.json says: delete"):
            prefix.find_finished()


def test_what_a_process_killed_right_behind_its_manifest_left_is_taken_away(prefix):
    prefix.commit(MANIFEST)
    for key in ("state/brew.json", "state/claim.json"):
        prefix.store.write(key, b"{}")
    assert prefix.find_finished() == MANIFEST
    assert [info.key for info in prefix.store.list()] == ["manifest.json"]


def test_an_input_under_the_output_is_refused_whatever_its_uri_looks_like(prefix, tmp_path):
    prefix.check_apart([f"file://{tmp_path}/outside/a.jsonl", "s3://bucket/out/a.jsonl"])
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for uri in (
        f"file://{tmp_path}/out/a.jsonl",
        f"file://{tmp_path}/link/a.jsonl",
        f"file://{tmp_path}/./out/a.jsonl",
    ):
        with pytest.raises(ConfigError, match="choose another --out"):
            prefix.check_apart([uri])


def test_the_output_is_not_what_is_read_by_whatever_name(prefix, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    prefix.check_other(["s3://bucket/out", str(tmp_path)])
    for uri in (tmp_path / "out", f"{tmp_path}/./out", f"{tmp_path}/link/", f"file://{tmp_path}/link"):
        with pytest.raises(ConfigError, match="itself: choose another --out"):
            prefix.check_other([str(uri)])
