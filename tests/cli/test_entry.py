from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trimtab.cli import entry
from trimtab.cli.entry import KERNEL_CACHES, TUNABLES, VARIABLE, needs_tunables

is_glibc = sys.platform == "linux" and (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
on_glibc = pytest.mark.skipif(not is_glibc, reason="not on glibc")


@pytest.fixture(autouse=True)
def _as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, *KERNEL_CACHES):
        monkeypatch.delenv(name, raising=False)


@on_glibc
@pytest.mark.parametrize("command", ["train", "resume", "demo", "plan"])
def test_commands_that_update_weights_need_another_allocator(command: str) -> None:
    assert needs_tunables([command, "config.yaml"])


@pytest.mark.parametrize("arguments", [[], ["--help"], ["explain", "train"], ["report", "plan"]])
def test_the_others_start_at_once(arguments: list[str]) -> None:
    assert not needs_tunables(arguments)


def test_what_the_user_set_for_malloc_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "glibc.malloc.arena_max=1")
    assert not needs_tunables(["train"])


@on_glibc
def test_the_command_begins_once_more_with_the_same_arguments() -> None:
    told = "import os, sys; sys.stderr.write(os.environ.get('GLIBC_TUNABLES', 'none')); "
    code = (
        "import sys; from trimtab.cli import app, entry; "
        f"app.main = lambda: exec({told!r} + 'sys.stderr.write(repr(sys.argv[1:]))'); entry.main()"
    )
    arguments = ["train", "two words", "--seed", "3"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, VARIABLE: "glibc.rtld.nns=4"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr == f"glibc.rtld.nns=4:{TUNABLES}{arguments!r}"


@pytest.mark.parametrize(
    ("command", "mine", "in_force"),
    [
        ("train", {}, ["64", "16"]),
        ("train", {"LRU_CACHE_CAPACITY": "3"}, ["64", "3"]),
        ("explain", {}, ["", ""]),
    ],
)
def test_kernel_caches_are_bounded_where_the_user_has_not(
    command: str, mine: dict[str, str], in_force: list[str]
) -> None:
    told = f"import os; print([os.environ.get(name, '') for name in {list(KERNEL_CACHES)!r}])"
    main = f"lambda: exec({told!r}, {{}})"
    code = f"from trimtab.cli import app, entry; app.main = {main}; entry.main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, command],
        env={**os.environ, VARIABLE: "glibc.malloc.arena_max=1", **mine},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == repr(in_force)


def test_ctrl_c_while_the_command_is_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["trimtab", "explain"])
    monkeypatch.setattr("trimtab.cli.app.main", interrupted)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Aborted.\n"
