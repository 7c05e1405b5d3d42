"""Training on Ray is training in processes of this machine, bit for bit."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
from support.ends import differences
from support.runs import tiny_config

from trimtab.cli.processes import exit_code_of, started_processes
from trimtab.cli.ray_processes import Channel, cpus_for_each
from trimtab.errors import ConfigError, Interrupted

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
TRAIN = [sys.executable, "-m", "trimtab", "train"]
CONFIG: dict[str, Any] = {
    "chat_template": "none",
    "lora_dropout": 0.1,
    "global_batch_size": 4,
    "per_device_train_batch_size": 1,
    "learning_rate": 3e-3,
    "eval_steps": 4,
    "save_steps": 3,
    "report_samples": 0,
}
LONGEST_S = 900.0
NUM_STARTS = 5
# Where a token lies in the home folder, Ray's own start asks for it, and an address needs it named.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5f" * 32}


def config_file(folder: Path, model: Path, **changes: Any) -> Path:
    config = tiny_config(folder, model, **{**CONFIG, **changes})
    del config["output_dir"]
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return file


def environment() -> dict[str, str]:
    return {**os.environ, **TOKEN, "OMP_NUM_THREADS": "1"}


def trained(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRAIN, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_S,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray of two CPUs that the test starts; a machine that is busy may need more
    than the half minute that Ray gives itself."""
    folder = tmp_path_factory.mktemp("ray")
    for number in range(NUM_STARTS):
        with (folder / f"told-{number}").open("w+") as told:
            port = free_port()
            process = start_ray(port, told)
            try:
                address = address_told(process, Path(told.name))
                if address is not None:
                    yield f"{address}:{port}"
                    return
            finally:
                process.terminate()
                process.wait()
    pytest.fail((folder / f"told-{number}").read_text())


def start_ray(port: int, told: IO[str]) -> subprocess.Popen[str]:
    ports = {"port": port, "ray-client-server-port": free_port()}
    sizes = {"num-cpus": 2, "object-store-memory": 100_000_000}
    words = [f"--{name}={value}" for name, value in {**ports, **sizes}.items()]
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    return subprocess.Popen(
        [*start, "--include-dashboard=false", "--disable-usage-stats", *words],
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        stdout=told,
        stderr=subprocess.STDOUT,
        text=True,
    )


def address_told(process: subprocess.Popen[str], told: Path) -> str | None:
    while process.poll() is None:
        text = told.read_text()
        found = re.search(r"Local node IP: (\S+)", text)
        if found is not None and "Ray runtime started" in text:
            return found[1]
        time.sleep(0.1)
    return None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@needs_ray
def test_two_processes_on_ray_are_two_of_this_machine(
    cluster: str, tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(config_file(tmp_path, tiny_llama_folder))
    here = trained(file, "--num-processes", "2", "--output-dir", "here")
    assert here.returncode == 0, here.stderr
    on_ray = ["--num-processes", "2", "--on", f"ray:{cluster}"]
    there = trained(file, *on_ray, "--output-dir", "ray")
    assert there.returncode == 0, there.stderr
    assert there.stdout.count("training loss") == 1
    assert "Traceback" not in there.stderr
    assert json.loads((tmp_path / "ray" / "summary.json").read_text())["num_steps"] == 6
    assert differences(tmp_path / "ray", tmp_path / "here") == []
    assert not list(tmp_path.glob(".trimtab-ray-*"))


@needs_ray
def test_a_stop_saves_and_a_death_of_the_command_leaves_nobody(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    """On a Ray of its own. SIGTERM while it trains: 75. Then it goes on, and is killed: all of its
    processes end."""
    file = config_file(tmp_path, tiny_llama_folder, max_steps=100_000, save_steps=100_000)
    run = tmp_path / "run"
    on_ray = ["--num-processes", "2", "--on", "ray"]
    train = [*TRAIN, str(file), *on_ray, "--output-dir", str(run), "--eval-dataset", "none"]
    with started(train, tmp_path) as process:
        wait_for_updates(process, run, 1)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 75, told
    assert told.count("saved after update") == 1
    saved = json.loads((run / "summary.json").read_text())["num_steps"]
    resume = [*TRAIN[:-1], "resume", str(run), *on_ray]
    with started(resume, tmp_path) as process:
        wait_for_updates(process, run, saved + 1)
        below = psutil.Process(process.pid).children(recursive=True)
        assert sum(str(run) in each.cmdline() for each in below) == 2
        process.kill()
        _, alive = psutil.wait_procs(below, timeout=LONGEST_S)
        for each in alive:
            each.kill()
        assert not alive


def started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_updates(process: subprocess.Popen[str], run: Path, number: int) -> None:
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + LONGEST_S
    while not metrics.exists() or metrics.read_bytes().count(b'"grad_norm"') < number:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@needs_ray
def test_more_processes_than_there_is_room_for_are_refused(
    cluster: str, tmp_path: Path, tiny_llama_folder: Path
) -> None:
    file = str(config_file(tmp_path, tiny_llama_folder))
    refused = trained(file, "--num-processes", "3", "--on", f"ray:{cluster}", "--device", "cpu")
    assert refused.returncode == 2, refused.stderr
    assert "3 processes were asked for, and Ray has 2 CPUs" in refused.stderr


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_is_said_how_to_have_it() -> None:
    with pytest.raises(ConfigError, match=r"trimtab\[ray\]"):
        started_processes(2, "ray", ["train", "c.yaml"], device=lambda: "auto")


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="local, ray"):
        started_processes(2, "slurm", ["train", "c.yaml"], device=lambda: "auto")


def test_under_another_launcher_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(ConfigError, match="--on ray: the launcher has started 2"):
        started_processes(None, "ray", ["train", "c.yaml"], device=lambda: "auto")


def test_a_process_that_was_started_does_the_work_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_LAUNCHER", "1")
    assert started_processes(2, "ray", ["train", "c.yaml"], device=lambda: "auto") is None


@pytest.mark.parametrize(
    ("nodes", "num_processes", "takes_gpu", "expected"),
    [
        ([(8, 0)], 1, False, 8),
        ([(8, 0)], 3, False, 2),
        ([(2, 0)], 2, False, 1),
        ([(2, 0)], 3, False, 0),
        ([(4, 0), (4, 0)], 1, False, 4),
        ([(4, 0), (4, 0)], 3, False, 2),
        ([(64, 8), (64, 8)], 16, True, 8),
        ([(64, 8), (64, 8)], 2, True, 64),
        ([(64, 8), (64, 8)], 17, True, 0),
        ([(64, 0), (16, 2)], 2, True, 8),
        ([(64, 0), (16, 2)], 3, True, 0),
        ([(0, 8)], 1, True, 0),
        ([], 1, False, 0),
    ],
)
def test_each_process_has_as_many_cpus_as_machines_have_for_all(
    nodes: list[tuple[int, int]], num_processes: int, takes_gpu: bool, expected: int
) -> None:
    resources = [{"CPU": float(cpus), "GPU": float(gpus)} for cpus, gpus in nodes]
    assert cpus_for_each(resources, num_processes, takes_gpu=takes_gpu) == expected


def test_the_channel_gives_what_was_said_once_and_ends_always() -> None:
    channel = Channel()
    channel.say(2, b"one\n")
    assert channel.asked() == (False, False, 0)
    assert channel.heard() == ([(2, b"one\n")], {})
    channel.ended(1, 0)
    channel.stop()
    assert channel.asked() == (True, False, 1)
    channel.ended(0, 75)
    assert channel.asked() == (True, True, 2)
    assert channel.heard() == ([], {0: 75, 1: 0})


@pytest.mark.parametrize(
    ("ends", "code"), [({0: 0, 1: 0}, 0), ({0: 75, 1: -9}, 75), ({0: 5, 1: 0}, 5)]
)
def test_the_first_process_has_the_exit_code(ends: dict[int, int], code: int) -> None:
    assert exit_code_of(ends, "ray") == code


def test_where_the_first_could_not_tell_the_killed_are_named() -> None:
    with pytest.raises(Interrupted, match=r"process 0 \(SIGKILL\) of 2") as interrupted:
        exit_code_of({0: -9, 1: 0}, "ray:first:6379")
    assert "--num-processes 2 --on ray:first:6379" in str(interrupted.value)
    with pytest.raises(Interrupted, match=r"1 \(SIGSEGV\) of 2"):
        exit_code_of({0: 0, 1: -11}, "local")
