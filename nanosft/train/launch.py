"""`nanosft launch`: torchrun's own agent in this process, with exit codes that tell what happened.

    nanosft launch --nproc-per-node 8 train --base s3://bucket/base --data s3://bucket/mix --out s3://bucket/run
    nanosft launch --nproc-per-node 8 eval --model s3://bucket/run --out s3://bucket/run-evaluation

torchrun exits with 1 whatever its ranks returned, and kills them 30 s after SIGTERM. Here the exit code is the
root-cause rank's; 143 after SIGTERM; and 138 for what is worth a restart: a rank killed by a signal, a collective or a
rendezvous that failed, a store that may come back (75). The ranks get the pod's grace less 10 s to save their state.
Restarts within `--max-restarts`, elastic or not, are the agent's; every restarted rank resumes from the newest state.
"""

import logging
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import distributed as dist
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, launch_agent

from nanosft.errors import EXIT_OK, EXIT_RETRY, EXIT_SIGTERM, ConfigError, StoreError
from nanosft.settings.train import LaunchSettings

_COMMANDS: Final = ("train", "eval")
_KEPT_BACK_S: Final = 10
"""Of the pod's grace, for the agent itself."""
_RENDEZVOUS_TIMEOUT_S: Final = 900
_log = logging.getLogger(__name__)


def run_launch(settings: LaunchSettings, arguments: Sequence[str]) -> int:
    """Run `nanosft <arguments>` on every rank of this node.

    Args:
        settings: How many, and where they meet.
        arguments: The command and its options, `["train", "--base", …]`.

    Returns:
        The exit code of the process.

    Raises:
        ConfigError: No command is given, or the settings do not fit each other.
    """
    if not arguments or arguments[0] not in _COMMANDS or "compare" in arguments[1:2]:
        known = " or ".join(_COMMANDS)
        raise ConfigError(f"nanosft launch starts ranks of {known}: nanosft launch --nproc-per-node 8 train …")
    config = make_config(settings)
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # a store of their own for the ranks of each restart
    _log.info("node %s of %s: %d ranks of %s", settings.node_rank, settings.nnodes, config.nproc_per_node, arguments[0])
    try:
        launch_agent(config, sys.executable, ["-m", "nanosft", *arguments])
    except ChildFailedError as exc:
        code = find_exit_code(exc.failures)
        _log.error("rank %d failed first; exit code %d", exc.get_first_failure()[0], code)
        return code
    except SignalException as exc:
        return 128 + int(exc.sigval)
    except (RendezvousError, dist.DistError, TimeoutError) as exc:
        _log.error("the nodes did not find each other: %s; exit code %d", exc, EXIT_RETRY)
        return EXIT_RETRY
    return EXIT_OK


def make_config(settings: LaunchSettings) -> LaunchConfig:
    """The agent's configuration, as torchrun makes it of the same options and variables.

    Raises:
        ConfigError: A value is none that torchrun would take either.
    """
    least, _, most = settings.nnodes.partition(":")
    backend, endpoint, job = settings.rdzv_backend, settings.rdzv_endpoint, settings.rdzv_id
    alone = settings.nnodes == "1" and backend == "static" and not endpoint
    configs: dict[str, Any] = {"timeout": _RENDEZVOUS_TIMEOUT_S, **_parse_pairs(settings.rdzv_conf)}
    if settings.standalone or alone:
        backend, endpoint, job = "c10d", "localhost:0", uuid.uuid4().hex
    elif backend == "static":
        endpoint = endpoint or f"{settings.master_addr}:{settings.master_port}"
        configs["rank"] = settings.node_rank
    if int(least) > int(most or least):
        raise ConfigError(f"--nnodes {settings.nnodes}: the least is more than the most")
    return LaunchConfig(
        min_nodes=int(least),
        max_nodes=int(most or least),
        nproc_per_node=_count_ranks(settings.nproc_per_node),
        run_id=job,
        role="nanosft",
        rdzv_backend=backend,
        rdzv_endpoint=endpoint,
        rdzv_configs=configs,
        max_restarts=settings.max_restarts,
        monitor_interval=settings.monitor_interval,
        shutdown_timeout=int(settings.grace_s - _KEPT_BACK_S),
    )


def find_exit_code(failures: Mapping[int, ProcessFailure]) -> int:
    """The root cause's code, or 138 where a restart may help.

    A rank that fails on its own takes the others down with it, as lost ranks: those never hide its code.
    """
    codes = [failure.exitcode for failure in sorted(failures.values(), key=lambda failure: failure.timestamp)]
    may_pass = {EXIT_RETRY, StoreError.exit_code}
    own = [code for code in codes if code > 0 and code not in may_pass]
    is_stopped = EXIT_SIGTERM in own
    return next((code for code in own if code != EXIT_SIGTERM), EXIT_SIGTERM if is_stopped else EXIT_RETRY)


def _count_ranks(value: str) -> int:
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if value == "auto":
        return num_gpus or 1
    if value == "gpu":
        if not num_gpus:
            raise ConfigError("--nproc-per-node gpu: this machine has no GPU that torch can use")
        return num_gpus
    return len(os.sched_getaffinity(0)) if value == "cpu" else int(value)


def _parse_pairs(text: str) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, found, value = item.partition("=")
        if not found:
            raise ConfigError(f"--rdzv-conf: {item!r} is no key=value")
        pairs[key.strip()] = int(value) if value.strip().isdigit() else value.strip()
    return pairs
