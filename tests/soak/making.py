"""mix, train, eval, report and export on the road, where each has to make what it makes undisturbed, byte by byte."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import orjson

from nanosft.store import open_store
from tests.real_sets import read_chitchat, write_jsonl
from tests.soak.table import Stage, compare
from tests.soak.world import ANY_REQUEST, Sign, World, finish, manifest_of, nanosft

_BASE: Final = Path(__file__).parents[1] / "golden" / "nanochat" / "g5"
Items = Callable[[str], list[Hashable]]
_WEIGHTS: Final = ".pt"


def walk_mix(world: World) -> Stage:
    """A mixture of both generated sets and real chats; what is counted is its lines."""
    write_jsonl(world.folder / "chitchat.jsonl", read_chitchat())
    uris = {
        "generated": world.disturbed("generate"),
        "batches": world.disturbed("batches"),
        "chitchat": str(world.folder / "chitchat.jsonl"),
    }
    recipe = world.folder / "recipe.toml"
    sources = "".join(f'[[sources]]\nname = "{name}"\nuri = "{uri}"\n' for name, uri in uris.items())
    recipe.write_text(f"shard_rows = 100\n{sources}[split]\nval_share = 0.05\n")
    work = world.new_folder("work")

    def make(out: str) -> list[str]:
        return nanosft("mix", "--recipe", recipe, "--out", out, "--work-dir", work, "--workers", 2)

    stage = _walk(world, "mix", "rows", make, _lines)
    if left := list(work.glob("*/rows-*")):
        problem = f"{len(left)} files of killed runs are still in the work directory"
        return replace(stage, problems=(*stage.problems, problem))
    return stage


def walk_train(world: World) -> Stage:
    """Two ranks; what is counted is steps with their losses, and the weights have to be the same bit for bit."""
    sizes = ["--max-seq-len", 512, "--total-batch-size", 2048, "--max-steps", world.sizes.steps]
    saving = ["--save-every", 10, "--eval-every", 50, "--eval-rows", 4, "--sample-tokens", 4]
    machine = ["--device", "cpu", "--dtype", "float32", "--num-threads", 1, "--num-workers", 1]

    def make(out: str) -> list[str]:
        words = ["train", "--base", _BASE, "--data", world.disturbed("mix"), "--out", out]
        return nanosft("launch", "--standalone", "--nproc-per-node", 2, *words, *sizes, *saving, *machine)

    return _walk(
        world,
        "train",
        "steps",
        make,
        _steps,
        same=_hashes_of_weights,
        reach=0.2,
        sign=("PUT", "/state/step_"),
        num_blows=world.sizes.blows,
    )


def walk_eval(world: World) -> Stage:
    """Probes of the trained model and its base; what is counted is answers."""
    words = ["--knowledge", "knowledge/demo.md", "--num-probes", world.sizes.probes, "--num-sampled", 4]
    words += ["--num-documents", 8, "--max-tokens", 8, "--device", "cpu"]

    def make(out: str) -> list[str]:
        return nanosft("eval", "--model", world.disturbed("train"), "--out", out, *words)

    return _walk(world, "eval", "answers", make, _lines)


def walk_report(world: World) -> Stage:
    """The run's page."""

    def make(out: str) -> list[str]:
        return nanosft("report", world.disturbed("train"), "--out", f"{out}/page.html")

    return _walk(world, "report", "pages", make, lambda uri: [_sha256(open_store(uri).read("page.html"))])


def walk_export_model(world: World) -> Stage:
    """The model for nanochat's tools."""

    def make(out: str) -> list[str]:
        return nanosft("export", "--model", world.disturbed("train"), "--to", "nanochat", "--out", out)

    return _walk(world, "export-model", "objects", make, _hashes)


def walk_export_data(world: World) -> Stage:
    """The generated set for Hugging Face's libraries."""

    def make(out: str) -> list[str]:
        return nanosft("export", "--data", world.disturbed("generate"), "--to", "hf", "--out", out)

    return _walk(world, "export-data", "objects", make, _hashes)


def _walk(
    world: World,
    name: str,
    unit: str,
    make: Callable[[str], Sequence[str]],
    items: Items,
    *,
    same: Items | None = None,
    num_blows: int = 0,
    reach: float = 0.5,
    sign: Sign = ANY_REQUEST,
) -> Stage:
    """One command, disturbed and not, on the same inputs; `items` are counted, `same` has to be equal too."""
    commands = [make(world.disturbed(name))]
    num_blows = num_blows or -(-world.sizes.blows // 2)
    account = world.walk(name, [make(world.undisturbed(name))], commands, num_blows=num_blows, reach=reach, sign=sign)
    if account.problems:
        return finish(Stage(name, unit, 1, 0, lost=1), account)
    account.problems += world.check_again(name, commands)
    out, whole = world.disturbed(name), world.undisturbed(name)
    stage = compare(Stage(name, unit, 0, 0), items(whole), items(out))
    if same is not None and sorted(map(str, same(whole))) != sorted(map(str, same(out))):
        account.problems.append("other weights than undisturbed")
    return finish(stage, account)


def _lines(uri: str) -> list[Hashable]:
    """Hashes of all lines that the manifest's JSONL objects have; their order is held by the objects' own hashes."""
    store, objects = open_store(uri), manifest_of(uri).objects
    found: list[Hashable] = []
    for item in objects:
        if item.key.endswith(".jsonl"):
            found += [(item.key, number, line) for number, line in enumerate(store.read(item.key).splitlines())]
    return found


def _steps(uri: str) -> list[Hashable]:
    """Step and losses of each line of the metrics that tells of one."""
    store = open_store(uri)
    (key,) = [item.key for item in manifest_of(uri).objects if "metrics" in item.key]
    lines = [orjson.loads(line) for line in store.read(key).splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def _hashes_of_weights(uri: str) -> list[Hashable]:
    return [(item.key, item.sha256) for item in manifest_of(uri).objects if item.key.endswith(_WEIGHTS)]


def _hashes(uri: str) -> list[Hashable]:
    return [(item.key, item.sha256) for item in manifest_of(uri).objects]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
