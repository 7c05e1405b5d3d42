"""A command in processes that Ray places, on this machine or on a cluster that sees the same files.

Ray Train's TorchTrainer finds the devices, starts a worker beside each and connects them. A worker
starts the command in a process of its own, which trains as under `--num-processes`: it has a main
thread for signals, and an allocator that suits tensors. What the first one prints comes back here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from trimtab.cli.processes import environment_of_launched
from trimtab.errors import ConfigError, Interrupted
from trimtab.models.foreign import first_sentence
from trimtab.workflow.ray_cluster import connected_ray
from trimtab.workflow.stopping import stop_at_update_end

POLL_S = 0.2
GRACE_S = 30.0
"""What is left to processes that were told to end because another failed, as under torchrun."""
RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def run_on_ray(
    on: str, num_processes: int | None, arguments: Sequence[str], *, device: str
) -> dict[int, int]:
    """Each process's exit code by its rank; negative: the signal that it died of.

    Every process has a GPU where the cluster has any and `device` is not `cpu`, and as many CPUs as
    there are for each. `num_processes` None: one for each GPU, or one. Raises ConfigError where
    there is no Ray or no room, and Interrupted where a machine or worker was lost.
    """
    ray = connected_ray(on)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    num_gpus = 0 if device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
    wanted = num_processes or max(1, num_gpus)
    num_cpus = cpus_for_each(nodes, wanted, takes_gpu=num_gpus > 0)
    if num_cpus == 0:
        kind = "GPU" if num_gpus else "CPU"
        there = num_gpus or int(sum(node.get("CPU", 0) for node in nodes))
        raise ConfigError(
            f"{wanted} processes were asked for, and Ray has {there} {kind}s.",
            hint="Start fewer with --num-processes, or add machines.",
        )
    channel = ray.remote(Channel).options(num_cpus=0).remote()
    command = {
        "channel": channel,
        "arguments": list(arguments),
        "folder": str(Path.cwd()),
        "num_threads": num_cpus,
    }
    # Workers look at this folder for checkpoints of Ray's own, so that all must see it.
    with tempfile.TemporaryDirectory(prefix=".trimtab-ray-", dir=Path.cwd()) as folder:
        fit = _trainer(command, wanted, num_cpus, num_gpus > 0, folder).fit
        ends, error = _followed(ray, channel, fit)
    ray.kill(channel)
    if len(ends) < wanted:
        raise Interrupted(
            f"Ray lost a process of {wanted} ({error}); what was saved before is there.",
            hint=f"Go on with: trimtab resume RUN --num-processes {wanted} --on {on}",
        )
    return ends


def cpus_for_each(
    nodes: Iterable[Mapping[str, float]], num_processes: int, *, takes_gpu: bool
) -> int:
    """The most CPUs that each process can have, all on machines of these resources; 0: no room."""
    machines = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]

    def room(num_cpus: int) -> int:
        return sum(
            min(cpus // num_cpus, gpus) if takes_gpu else cpus // num_cpus
            for cpus, gpus in machines
        )

    most = max((cpus for cpus, _ in machines), default=0)
    return next((number for number in range(most, 0, -1) if room(number) >= num_processes), 0)


class Channel:
    """What workers and the command that waits for them tell each other, as an actor of Ray's."""

    def __init__(self) -> None:
        self._said: list[tuple[int, bytes]] = []
        self._ends: dict[int, int] = {}
        self._is_to_stop = False

    def say(self, descriptor: int, text: bytes) -> None:
        self._said.append((descriptor, text))

    def ended(self, rank: int, code: int) -> None:
        self._ends[rank] = code

    def stop(self) -> None:
        self._is_to_stop = True

    def asked(self) -> tuple[bool, bool, int]:
        """Whether a stop was asked for, whether a process failed, and how many have ended."""
        return self._is_to_stop, any(self._ends.values()), len(self._ends)

    def heard(self) -> tuple[list[tuple[int, bytes]], dict[int, int]]:
        """What was said since the last time, and the ends up to now."""
        said, self._said = self._said, []
        return said, self._ends


def _trainer(
    command: Mapping[str, Any], num_processes: int, num_cpus: int, takes_gpu: bool, folder: str
) -> Any:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    class OnTheCPU(TorchConfig):  # type: ignore[misc, unused-ignore]
        """The worker leaves the GPU's memory to the process below it."""

        @property
        def train_func_context(self) -> Any:
            return contextlib.nullcontext

    return TorchTrainer(
        _work,
        train_loop_config=dict(command),
        torch_config=OnTheCPU(backend="gloo"),
        scaling_config=ScalingConfig(
            num_workers=num_processes,
            use_gpu=takes_gpu,
            resources_per_worker={"CPU": num_cpus, **({"GPU": 1} if takes_gpu else {})},
        ),
        run_config=RunConfig(name="processes", storage_path=folder),
    )


def _followed(ray: Any, channel: Any, fit: Callable[[], Any]) -> tuple[dict[int, int], str]:
    """Pass on what the first process prints, and signals to all, until they have ended.

    Returns their exit codes, and what Ray says where it lost one. A second signal aborts with
    KeyboardInterrupt, and Ray's end with it.
    """
    errors: list[str] = []
    thread = threading.Thread(target=_fitted, args=(fit, errors), daemon=True)
    has_told = False
    with stop_at_update_end(lambda: None) as stop_requested:
        thread.start()
        is_left = True
        while is_left:
            thread.join(POLL_S)
            is_left = thread.is_alive()
            if stop_requested() and not has_told:
                ray.get(channel.stop.remote())
                has_told = True
            said, ends = ray.get(channel.heard.remote())
            for descriptor, text in said:
                stream = (sys.stdout, sys.stderr)[descriptor - 1]
                stream.write(text.decode(errors="replace"))
                stream.flush()
    return dict(ends), errors[0] if errors else "it does not say why"


def _fitted(fit: Callable[[], Any], errors: list[str]) -> None:
    try:
        fit()
    except Exception as error:  # Ray's own, and whatever a worker could not begin with
        errors.append(first_sentence(error).rstrip("."))


def _work(command: dict[str, Any]) -> None:
    """One of Ray Train's workers: the command in a process below it, until all have ended."""
    import ray

    rank, channel = int(os.environ["RANK"]), command["channel"]
    # The store that processes meet at, which must outlive each of them, is the first worker's.
    store, environment = _met(rank, command["num_threads"])
    with subprocess.Popen(
        [sys.executable, "-m", "trimtab", *command["arguments"]],
        cwd=command["folder"],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
        stderr=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
    ) as process:
        readers = [
            threading.Thread(target=_pass_on, args=(stream, descriptor, ray, channel))
            for descriptor, stream in ((1, process.stdout), (2, process.stderr))
            if stream is not None
        ]
        for reader in readers:
            reader.start()
        code = _attended(ray, channel, process)
        for reader in readers:
            reader.join()
    ray.get(channel.ended.remote(rank, code))
    while ray.get(channel.asked.remote())[2] < int(os.environ["WORLD_SIZE"]):
        time.sleep(POLL_S)
    del store


def _met(rank: int, num_threads: int) -> tuple[Any, dict[str, str]]:
    import torch.distributed as dist
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, store = os.environ["MASTER_ADDR"], None
    told: list[int] = [0]
    if rank == 0:
        store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
        told = [store.port]
    dist.broadcast_object_list(told)
    ranks = {name: os.environ[name] for name in RANK_VARIABLES}
    return store, ranks | environment_of_launched(address, told[0], num_threads=num_threads)


def _pass_on(stream: IO[bytes], descriptor: int, ray: Any, channel: Any) -> None:
    for line in stream:
        ray.get(channel.say.remote(descriptor, line))


def _attended(ray: Any, channel: Any, process: subprocess.Popen[bytes]) -> int:
    """Wait for the process; it is told to end where a stop is asked for or another failed."""
    is_told, failed_at = False, 0.0
    while process.poll() is None:
        is_to_stop, has_failed, _ = ray.get(channel.asked.remote())
        if (is_to_stop or has_failed) and not is_told:
            process.send_signal(signal.SIGTERM)
            is_told = True
        if has_failed:
            failed_at = failed_at or time.monotonic()
            if time.monotonic() - failed_at > GRACE_S:
                process.kill()
        time.sleep(POLL_S)
    return process.returncode
