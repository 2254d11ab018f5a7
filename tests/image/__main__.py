"""Build the image, run generate, mix, train and chat in it against a SeaweedFS bucket, and print what it weighs.

    python -m tests.image

Each command runs as a random user, with a read-only root, without a capability; /scratch is a tmpfs.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nanosft import __version__
from tests.conftest import open_raw_client
from tests.image.build import ROOT, build, ensure_base, missing_tools, run
from tests.servers import ACCESS_KEY, SECRET_KEY, run_seaweed

TAG = f"localhost/nanosft-cpu:{__version__}"
BUCKET = "nanosft"
MIB = 1 << 20
RECIPE = f'[[sources]]\nname = "identity"\nuri = "s3://{BUCKET}/run/generated"\n'


def main() -> None:
    """Build, run, weigh."""
    console = Console(soft_wrap=True, width=110)
    if missing := missing_tools():
        sys.exit(f"make image-test needs {', '.join(missing)}: apt-get install buildah podman runc debootstrap")
    base = Path(os.environ.get("SHARED_DIR", ROOT.parent / "shared")) / "nanochat_base"
    if not base.is_dir():
        sys.exit(f"{base}: no nanochat base to train: set SHARED_DIR")
    ensure_base(console)
    build(TAG, console)
    with tempfile.TemporaryDirectory(prefix="nanosft-image-") as name, run_seaweed(Path(name)) as server:
        client = open_raw_client(server.url)
        client.create_bucket(Bucket=BUCKET)
        upload(client, base)
        (Path(name) / "recipe.toml").write_text(RECIPE)
        walk(console, server.url, Path(name))
    check_nothing_of_this_machine_is_in(console)
    print_sizes(console)


def upload(client: Any, base: Path) -> None:
    """Put the base directory into the bucket, without its optimizer files."""
    for path in sorted(base.rglob("*")):
        if path.is_file() and not path.name.startswith("optim_"):
            client.upload_file(str(path), BUCKET, f"base/{path.relative_to(base)}")


def walk(console: Console, url: str, folder: Path) -> None:
    """The four commands, one container each."""
    env = {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    prefix = f"s3://{BUCKET}/run"
    recipe = f"--volume={folder / 'recipe.toml'}:/etc/nanosft/recipe.toml:ro"
    size = [
        "--max-seq-len",
        "256",
        "--device-batch-size",
        "4",
        "--total-batch-size",
        "4096",
        "--max-steps",
        "6",
        "--num-threads",
        "2",
    ]
    commands = {
        "generate": ([], ["--out", f"{prefix}/generated", "--provider", "offline", "--num", "200"]),
        "mix": ([recipe], ["--recipe", "/etc/nanosft/recipe.toml", "--out", f"{prefix}/mixture"]),
        "train": (
            [],
            ["--base", f"s3://{BUCKET}/base", "--data", f"{prefix}/mixture", "--out", f"{prefix}/model", *size],
        ),
        "chat": ([], ["--model", f"{prefix}/model", "-p", "Who are you?", "--temperature", "0", "--max-tokens", "24"]),
    }
    for command, (mounts, arguments) in commands.items():
        user = random.SystemRandom().randint(100_000, 2_000_000_000)
        started_s = time.monotonic()
        output = container(env, user, mounts, [command, *arguments])
        shown = " ".join(output.split()[-24:])
        console.print(f"{command:<10} user {user}, {time.monotonic() - started_s:.1f} s: {shown}", markup=False)


def container(env: dict[str, str], user: int, mounts: list[str], arguments: list[str]) -> str:
    """Run one command in the image; its output.

    Raises:
        SystemExit: It failed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write("[containers]\ndefault_ulimits = []\n")  # a sandbox may not raise its own limits
        file.flush()
        confinement = ["--read-only", "--read-only-tmpfs=false", "--tmpfs=/scratch:mode=1777", "--cap-drop=all"]
        options = ["--rm", "--network=host", "--security-opt=no-new-privileges", f"--user={user}:0", *confinement]
        variables = [f"--env={name}" for name in env]
        command = ["podman", "--runtime=runc", "run", *options, *variables, *mounts, TAG, *arguments]
        return run(command, env={**env, "CONTAINERS_CONF": file.name})


def check_nothing_of_this_machine_is_in(console: Console) -> None:
    """No pip configuration, no CA of the build, no compiler, no credential in the image's configuration."""
    mounted = run(["podman", "image", "mount", TAG]).strip()
    try:
        root = Path(mounted)
        unwanted = [
            root / "etc/pip.conf",
            *root.glob("usr/bin/*gcc*"),
            *root.glob("usr/bin/cc"),
            *root.glob("root/.*pip*"),
        ]
        found = [str(path.relative_to(root)) for path in unwanted if path.exists() and path.stat().st_size]
        ca = root / "run/build-ca.pem"
        found += ["run/build-ca.pem"] if ca.exists() and ca.stat().st_size else []
    finally:
        subprocess.run(["podman", "image", "unmount", TAG], capture_output=True, check=False)
    config = json.loads(run(["podman", "image", "inspect", TAG]))[0]["Config"]
    found += [name for name in config["Env"] if "KEY" in name or "SECRET" in name]
    if config["User"] != "65532:65532":
        found.append(f"User {config['User']}")
    if found:
        sys.exit(f"the image holds what it should not: {', '.join(found)}")
    console.print("inside     no pip configuration, no build CA, no compiler, no credential; user 65532")


def print_sizes(console: Console) -> None:
    """The image's layers, as `podman history` has them, and its whole."""
    table = Table("MiB", "layer", title=TAG)
    history = json.loads(run(["podman", "history", "--format=json", "--no-trunc", TAG]))
    for layer in reversed(history):
        if layer["size"] > MIB // 10:
            created = layer["CreatedBy"].removeprefix("/bin/sh -c ").removeprefix("#(nop) ")
            table.add_row(f"{layer['size'] / MIB:.1f}", created[:90])
    size = json.loads(run(["podman", "image", "inspect", TAG]))[0]["Size"]
    table.add_row(f"{size / MIB:.0f}", "in all")
    console.print(table)


if __name__ == "__main__":
    main()
