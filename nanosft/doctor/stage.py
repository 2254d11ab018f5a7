"""`nanosft doctor`: all looks in their order, their report, and the exit code."""

import os
from collections.abc import Iterator
from dataclasses import asdict

import torch

from nanosft.distributed import open_world
from nanosft.doctor.bucket import check_prefix, check_readable
from nanosft.doctor.chat_api import check_chat_api
from nanosft.doctor.finding import Finding, choose_exit_code, look, write_lines
from nanosft.doctor.machine import check_device, check_disk, check_memory, check_shared_memory, check_versions
from nanosft.doctor.ranks import check_own_ranks, check_ranks
from nanosft.errors import EXIT_OK
from nanosft.progress import write_json, write_result
from nanosft.settings.doctor import DoctorSettings

_NUM_TRIES = "2"


def run_doctor(settings: DoctorSettings) -> int:
    """Look at everything, and print one line for each; under torchrun, rank 0 prints.

    Returns:
        The exit code: 0 where no look ends in an error.
    """
    # A dead endpoint shall be told of in seconds, not after the minute of retries that a run gives it.
    os.environ.setdefault("AWS_MAX_ATTEMPTS", _NUM_TRIES)
    findings = list(_examine(settings))
    if int(os.environ.get("RANK", "0")) > 0:
        return EXIT_OK
    code = choose_exit_code(findings)
    if settings.json_output:
        table = {"checks": [asdict(item) for item in findings], "exit_code": code}
        write_json(table)
    else:
        write_result("".join(f"{line}\n" for line in write_lines(findings)))
    return code


def _examine(settings: DoctorSettings) -> Iterator[Finding]:
    is_first = int(os.environ.get("RANK", "0")) == 0
    if is_first:
        yield check_versions()
        yield check_device(settings.device)
        yield check_memory()
        yield check_disk(settings.work_dir)
        if shared := check_shared_memory():
            yield shared
    yield from _examine_ranks(settings)
    if not is_first:
        return
    if settings.out is not None:
        yield from check_prefix(settings.out)
    for uri in settings.read:
        yield check_readable(uri)
    yield from check_chat_api(settings)


def _examine_ranks(settings: DoctorSettings) -> Iterator[Finding]:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:

        def meet() -> Finding:
            with open_world(settings.device, timeout_s=settings.timeout_s) as world:
                return check_ranks(world)

        yield look("ranks", "NCCL_DEBUG=INFO TORCH_DISTRIBUTED_DEBUG=DETAIL tell more", meet)
        return
    num_gpus = torch.cuda.device_count() if settings.device != "cpu" and torch.cuda.is_available() else 0
    num = max(num_gpus, 2) if settings.ranks is None else settings.ranks
    if num:
        device = "cuda" if num_gpus >= num else "cpu"
        yield check_own_ranks(num, device, timeout_s=settings.timeout_s)
