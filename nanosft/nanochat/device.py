"""Which device is meant."""

import torch

from nanosft.errors import ConfigError


def resolve_device(name: str) -> str:
    """The device that `--device` means: "auto" is the GPU where there is one.

    Raises:
        ConfigError: There is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).tolist()
    except (RuntimeError, AssertionError) as exc:
        reason = str(exc).splitlines()[0].partition(". ")[0]  # torch goes on with all that it was built for
        raise ConfigError(f"--device {name}: not on this machine ({reason})") from exc
    return name
