"""Licences of the packages that run time needs, and known holes in them: a part of `make check`.

The licences are what the installed packages say. For holes pip-audit asks a service over the network; where it, or the
network, is not there, a line says so, and no check fails for it.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Final

LOCK: Final = Path(__file__).parents[1] / "requirements" / "runtime.lock"
AUDIT: Final = Path(__file__).parents[1] / ".venv-audit" / "bin" / "pip-audit"
_TIMEOUT_S: Final = 120
_UNKNOWN: Final = ("not installed", "not stated")


def read_names(lock: str) -> list[str]:
    """The packages that a lock file pins."""
    return re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)


def find_licence(name: str) -> str:
    """What an installed package says of its licence, shortest form first."""
    try:
        told = metadata(name)
    except PackageNotFoundError:
        return _UNKNOWN[0]
    classes = [
        value.rpartition(" :: ")[2] for value in told.get_all("Classifier") or () if value.startswith("License ::")
    ]
    expression, text = (str((told.get_all(key) or [""])[0]) for key in ("License-Expression", "License"))
    licence = expression or " and ".join(classes) or text or _UNKNOWN[1]
    return licence.splitlines()[0][:60]


def add_licences(path: Path) -> None:
    """Name each component's licence in a CycloneDX file: a lock file, which it is made from, says nothing of them."""
    sbom = json.loads(path.read_text())
    for component in sbom["components"]:
        if (licence := find_licence(component["name"])) not in _UNKNOWN:
            component["licenses"] = [{"license": {"name": licence, "acknowledgement": "declared"}}]
    path.write_text(json.dumps(sbom, indent=2) + "\n")


def main() -> None:
    if sys.argv[1:]:
        add_licences(Path(sys.argv[1]))
        return
    by_licence: dict[str, list[str]] = defaultdict(list)
    for name in read_names(LOCK.read_text()):
        by_licence[find_licence(name)].append(name)
    for licence, names in sorted(by_licence.items()):
        sys.stdout.write(f"{licence}: {', '.join(names)}\n")
    if not AUDIT.exists():
        sys.stdout.write("NOT CHECKED: known holes of packages: `make .venv-audit/.setup-done` installs pip-audit\n")
        return
    command = [str(AUDIT), "--requirement", str(LOCK), "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    said = done.stdout + done.stderr
    if re.search(r"Found [1-9]\d* known vulnerabilit", said):
        sys.stdout.write(said)
        sys.exit(1)
    num_unknown = said.count("could not be audited")
    if done.returncode or num_unknown:
        sys.stdout.write(f"NOT CHECKED: known holes of {num_unknown or 'all'} packages: {said.strip()[-200:]}\n")


if __name__ == "__main__":
    main()
