"""Processes that reach one another: the ranks that torchrun started, or some of our own on this machine.

python -m nanosft.doctor.ranks cpu 20     one rank, as torchrun's variables tell; `check_own_ranks` starts them
"""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import torch

from nanosft.distributed import World, open_world
from nanosft.doctor.finding import Finding
from nanosft.errors import EXIT_RETRY, NanosftError

_START_S = 120.0
"""What a process takes to load torch, on a busy machine."""


def check_ranks(world: World) -> Finding:
    """A sum over all ranks, on the device and on the CPU: each must come out as it has to."""
    started_s = time.perf_counter()
    wanted = world.size * (world.size - 1) / 2
    values = [torch.full((1,), float(world.rank), dtype=torch.float64)]
    if world.device.type == "cuda":
        values.append(values[0].to(world.device))
    found = [world.sum(value).item() for value in values]
    hosts = sorted(set(world.gather(socket.gethostname())))
    took_ms = 1000 * (time.perf_counter() - started_s)
    backend = "NCCL and gloo" if world.device.type == "cuda" else "gloo"
    text = f"{world.size} ranks on {', '.join(hosts)} reach one another by {backend}, first sum in {took_ms:.0f} ms"
    if found != [wanted] * len(found):
        remedy = "NCCL_DEBUG=INFO tells more"
        return Finding("ranks", "error", f"{text}, but it is {found}, not {wanted:g}", remedy, EXIT_RETRY)
    return Finding("ranks", "ok", text)


def check_own_ranks(num: int, device: str, *, timeout_s: float) -> Finding:
    """The same of `num` processes of our own on this machine: gloo on the CPU, NCCL on GPUs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(num),
        "LOCAL_WORLD_SIZE": str(num),
    }
    command = [sys.executable, "-m", "nanosft.doctor.ranks", device, str(timeout_s)]
    remedy = "GLOO_SOCKET_IFNAME=lo (NCCL_SOCKET_IFNAME for GPUs), and a firewall that lets this machine reach itself"
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(
                subprocess.Popen(  # noqa: S603 - this program itself
                    command,
                    env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            for rank in range(num)
        ]
        try:
            said = [process.communicate(timeout=timeout_s + _START_S)[0].strip() for process in ranks]
        except subprocess.TimeoutExpired:
            return Finding("ranks", "error", f"{num} processes did not reach one another in time", remedy, EXIT_RETRY)
        finally:
            for process in ranks:
                process.kill()
    failed = [text for text, process in zip(said, ranks, strict=True) if process.returncode]
    if failed:
        last = next((text.splitlines()[-1] for text in failed if text), "no word")
        return Finding("ranks", "error", f"{num} processes do not reach one another: {last}", remedy, EXIT_RETRY)
    return Finding("ranks", "ok", said[0].splitlines()[-1])


def main(device: str, timeout_s: float) -> None:
    """Be one rank, and print what rank 0 found.

    Raises:
        SystemExit: The ranks do not reach one another.
    """
    try:
        with open_world(device, timeout_s=timeout_s, num_threads=1) as world:
            finding = check_ranks(world)
    except NanosftError as exc:
        raise SystemExit(str(exc)) from exc
    if finding.status == "error":
        raise SystemExit(finding.found)
    sys.stdout.write(f"{finding.found}\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
