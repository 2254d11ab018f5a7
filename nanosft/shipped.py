"""Files that ship with nanosft and are no code: the knowledge base, the Kubernetes manifests.

They stand at the top of the repository, where people look for them; the wheel carries them inside the package
(`force-include` in pyproject.toml) under the same paths.
"""

from importlib.resources import files
from pathlib import Path

from nanosft.errors import ConfigError


def find_shipped(path: str) -> Path:
    """The file or folder that is `path` in the repository, wherever nanosft is installed and started from.

    Raises:
        ConfigError: This installation has it neither in the package nor, as a checkout does, beside it.
    """
    package = Path(str(files("nanosft")))
    for parent in (package, package.parent):
        if (parent / path).exists():
            return parent / path
    raise ConfigError(f"{package}: this installation lacks {path}: install nanosft anew")
