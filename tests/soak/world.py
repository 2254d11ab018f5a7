"""What both walks share: a bucket whose requests fail now and then, a directory, and how a stage is walked."""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from nanosft.data import read_manifest
from nanosft.manifest import Manifest
from nanosft.store import open_store
from tests.chaos.checks import find_wrong_manifests
from tests.conftest import open_raw_client, use_endpoint
from tests.s3_proxy import Fault, Request, S3Proxy
from tests.servers import run_moto
from tests.soak.pods import Account, Blow, drive
from tests.soak.table import Stage

_BUCKET: Final = "soak"
_STORE_FAULTS: Final = {
    "503": Fault(status=503),
    "lost request": Fault(drop_before=True),
    "lost answer": Fault(drop_after=True),
    "cut body": Fault(cut_body_at=30),
}
_STORE_FAULT_RATE: Final = 0.008
"""Of each kind, of requests to S3."""
Sign = tuple[str, str]
"""Method of a request, and what its path has in it."""
ANY_REQUEST: Final[Sign] = ("GET", "")
BLOWS: Final[tuple[Blow, ...]] = ("SIGTERM", "SIGKILL", "SIGKILL to one process")


@dataclass(frozen=True)
class Sizes:
    """How much is made.

    Attributes:
        rows: Asked for one by one; half as many in batches.
        steps: Of training.
        probes: Of the evaluation.
        blows: To generate and train; half as many to every other stage.
    """

    rows: int
    steps: int
    probes: int
    blows: int

    @classmethod
    def scaled(cls, scale: float) -> "Sizes":
        """Those of ten minutes on two cores, times a scale."""
        return cls(round(1_200 * scale), round(120 * scale), max(8, round(30 * scale)), max(2, round(6 * scale)))


@dataclass
class World:
    """What the two walks share.

    Attributes:
        folder: Local directory of everything that is in no bucket.
        proxy: Before S3; it fails now and then.
        sizes: How much is made.
        draw: All moments.
        store_faults: How many of each kind there were.
    """

    folder: Path
    proxy: S3Proxy
    sizes: Sizes
    draw: random.Random
    store_faults: Counter[str] = field(default_factory=Counter)

    @property
    def env(self) -> dict[str, str]:
        """Variables of disturbed processes."""
        return {"AWS_ENDPOINT_URL": self.proxy.url}

    def disturbed(self, name: str) -> str:
        """URI of what the disturbed walk makes."""
        return f"s3://{_BUCKET}/{name}"

    def undisturbed(self, name: str) -> str:
        """URI of what the other one makes."""
        return str(self.folder / "undisturbed" / name)

    def new_folder(self, name: str) -> Path:
        """A new local directory."""
        found = self.folder / name
        found.mkdir(parents=True)
        return found

    def deal_blows(self, num: int) -> list[Blow]:
        """As many, of all kinds in turn, in an order of the seed's."""
        blows: list[Blow] = [BLOWS[number % len(BLOWS)] for number in range(num)]
        self.draw.shuffle(blows)
        return blows

    def walk(
        self,
        name: str,
        whole: Sequence[Sequence[str]],
        commands: Sequence[Sequence[str]],
        *,
        num_blows: int,
        reach: float,
        sign: Sign = ANY_REQUEST,
        on_kill: Callable[[], object] = lambda: None,
    ) -> Account:
        """Run a stage undisturbed, and then disturbed, until it is done.

        Args:
            name: Of the stage, and of its prefixes.
            whole: The commands undisturbed.
            commands: The same ones, on the store that fails.
            num_blows: How often one of them is hit.
            reach: How late at most, as a share of the time that the undisturbed stage took, after a sign of life.
            sign: The request to S3 that is that sign.
            on_kill: As for `drive`.
        """
        reference = drive(whole, env={}, folder=self.new_folder(f"logs/{name}-whole"))
        account = drive(
            commands,
            env=self.env,
            folder=self.new_folder(f"logs/{name}"),
            blows=self.deal_blows(num_blows),
            reach_s=reach * reference.elapsed_s,
            progress=partial(self._count_requests, sign),
            draw=self.draw,
            on_kill=on_kill,
        )
        account.problems += [f"undisturbed: {text}" for text in reference.problems]
        return account

    def _count_requests(self, sign: Sign) -> int:
        method, text = sign
        return sum(request.method == method and text in request.path for request in list(self.proxy.requests))

    def check_again(self, name: str, commands: Sequence[Sequence[str]]) -> list[str]:
        """What is wrong with a stage that is done: by its manifests, or once its commands have run again."""
        again = drive(commands, env=self.env, folder=self.new_folder(f"logs/{name}-again"))
        wrong = find_wrong_manifests(self.disturbed(name))
        return [f"once more: {text}" for text in again.problems] + [f"manifest: {text}" for text in wrong]


@contextmanager
def open_world(folder: Path, sizes: Sizes, seed: int) -> Iterator[World]:
    """A bucket on moto, and a proxy before it that fails on purpose, while the context is open."""
    with ExitStack() as stack:
        url = stack.enter_context(run_moto(folder))
        proxy = stack.enter_context(S3Proxy(url))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        use_endpoint(patch, url)
        open_raw_client(url).create_bucket(Bucket=_BUCKET)
        world = World(folder, proxy, sizes, random.Random(seed))
        draw = random.Random(seed + 1)
        for name, fault in _STORE_FAULTS.items():
            proxy.inject_when(_chance(draw, name, fault, world.store_faults), fault, times=sys.maxsize)
        yield world


def _chance(draw: random.Random, name: str, fault: Fault, counts: Counter[str]) -> Callable[[Request], bool]:
    def is_hit(request: Request) -> bool:
        fits = request.method == "GET" or fault.cut_body_at is None
        is_it = fits and draw.random() < _STORE_FAULT_RATE
        counts[name] += is_it
        return is_it

    return is_hit


def nanosft(*words: object) -> list[str]:
    """A command line."""
    return [sys.executable, "-m", "nanosft", *map(str, words)]


def finish(stage: Stage, account: Account) -> Stage:
    """A stage with what happened to its processes."""
    return replace(
        stage,
        stopped=account.stopped,
        killed=account.killed,
        resumed=account.resumed,
        problems=(*stage.problems, *account.problems),
        elapsed_s=account.elapsed_s,
    )


def manifest_of(uri: str) -> Manifest:
    """Of a finished prefix."""
    manifest = read_manifest(open_store(uri))
    assert manifest is not None, f"{uri}: there is no manifest"
    return manifest
