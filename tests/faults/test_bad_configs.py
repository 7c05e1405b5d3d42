"""Configurations that are no good, through the real command: exit 2, by file and line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trimtab.cli.app import run
from trimtab.hyperparameters.catalogue import aliases, catalogue
from trimtab.hyperparameters.translations import FOREIGN

HEAD = "model: m\ndataset: d.jsonl\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)

BAD_TEXTS: list[tuple[str, int, str]] = [
    # What is no YAML, or more than a configuration needs of it.
    (HEAD + "seed: 1\nseed: 2\n", 4, "seed is set twice, here and on line 3"),
    (HEAD + "lora_r: 4\nlora_r: 4\n", 4, "lora_r is set twice"),
    (HEAD + 'seed: 1\n"seed": 2\n', 4, "seed is set twice"),
    (HEAD + "seed: !!python/object/apply:os.system [ls]\n", 3, "!!python/object/apply"),
    (HEAD + "seed: !!python/name:os.system\n", 3, "!!python/name"),
    (HEAD + "seed: !<tag:yaml.org,2002:python/object/new:os.system> [x]\n", 3, "python/object/new"),
    (HEAD + "seed: !secret 1\n", 3, "!secret"),
    (HEAD + "seed: !!binary aGk=\n", 3, "!!binary"),
    (HEAD + "lr_scheduler_kwargs: !!set {a}\n", 3, "!!set"),
    (HEAD + "seed: !!omap [a: 1]\n", 3, "!!omap"),
    (LAUGHS, 1, "&a is a YAML anchor"),
    (HEAD + "seed: &s 1\n", 3, "&s is a YAML anchor"),
    (HEAD + "seed: *s\n", 3, "*s is a YAML anchor"),
    (HEAD + "dataset_columns: &c {prompt: *c}\n", 3, "&c is a YAML anchor"),
    (HEAD + "<<: {seed: 1}\n", 3, "'<<' is no hyperparameter"),
    (HEAD + "\tseed: 1\n", 3, "no valid YAML"),
    (HEAD + "dataset_columns:\n\tprompt: q\n", 4, "no valid YAML"),
    (HEAD + "  seed: 1\n", 3, "no valid YAML"),
    (HEAD + "seed: [1\n", 4, "no valid YAML"),
    (HEAD + "seed: {a: 1\n", 4, "no valid YAML"),
    (HEAD + "output_dir: 'runs\n", 3, "opened is never closed"),
    (HEAD + 'output_dir: "\\q"\n', 3, "no valid YAML"),
    (HEAD + "seed: @home\n", 3, "no valid YAML"),
    (HEAD + "seed: `x`\n", 3, "no valid YAML"),
    (HEAD + "seed\n", 4, "no valid YAML"),
    (HEAD + "- seed\n", 3, "no valid YAML"),
    (HEAD + "seed: a: b\n", 3, "no valid YAML"),
    ("- model: m\n- dataset: d\n", 1, "not a mapping from names to values"),
    ("model m\n", 1, "not a mapping"),
    ("42\n", 1, "not a mapping"),
    ('"text"\n', 1, "not a mapping"),
    ("[]\n", 1, "not a mapping"),
    (HEAD + "---\nseed: 1\n", 3, "a second YAML document starts here"),
    (HEAD + "...\n---\n", 4, "a second YAML document"),
    ("%YAML 1.1\n---\n" + HEAD, 2, "YAML 1.1 is declared"),
    ("%YAML 3.0\n---\n" + HEAD, 1, "no valid YAML"),
    (HEAD + "? [a, b]\n: 1\n", 3, "a key must be a name"),
    (HEAD + "? {a: b}\n: 1\n", 3, "a key must be a name"),
    (HEAD + "seed: a\x00b\n", 3, "U+0000 may not stand in YAML"),
    (HEAD + "seed: a\x1b[31mb\n", 3, "U+001B may not stand in YAML"),
    (HEAD + "seed: " + "[" * 5000 + "\n", 3, "nested"),
    (HEAD + "seed: " + "{a: " * 5000 + "\n", 3, "nested"),
    (HEAD + "lr_scheduler_kwargs: " + "{a: " * 12 + "1" + "}" * 12 + "\n", 3, "nested"),
    # Names.
    (HEAD + "learning_rte: 1e-4\n", 3, "Did you mean learning_rate?"),
    (HEAD + "Learning_Rate: 1e-4\n", 3, "Did you mean learning_rate?"),
    (HEAD + "learning rate: 1e-4\n", 3, "Did you mean learning_rate?"),
    (HEAD + "max_step: 10\n", 3, "Did you mean max_steps?"),
    (HEAD + "lora_rank_: 8\n", 3, "is no hyperparameter"),
    (HEAD + "training:\n  seed: 1\n", 3, "'training' is no hyperparameter"),
    (HEAD + "null: 1\n", 3, "'null' is no hyperparameter"),
    (HEAD + "'': 1\n", 3, "'' is no hyperparameter"),
    (HEAD + "__class__: x\n", 3, "'__class__' is no hyperparameter"),
    (HEAD + "model_config: {}\n", 3, "'model_config' is no hyperparameter"),
    (HEAD + '"\\e[31mseed": 1\n', 3, "'\\x1b[31mseed' is no hyperparameter"),
    (HEAD + f"{'x' * 900}: 1\n", 3, "is no hyperparameter"),
    # Values.
    (HEAD + "learning_rate: 1e400\n", 3, "learning_rate is inf"),
    (HEAD + "learning_rate: .nan\n", 3, "The value must be finite"),
    (HEAD + "learning_rate: .inf\n", 3, "The value must be finite"),
    (HEAD + "learning_rate: -1e-4\n", 3, "it takes auto, or a number > 0"),
    (HEAD + "learning_rate: 0\n", 3, "it takes auto, or a number > 0"),
    (HEAD + "learning_rate: '1e-4'\n", 3, "It is a text here"),
    (HEAD + "learning_rate: 1e-4 # fine\nwarmup_ratio: 1\n", 4, "warmup_ratio is 1"),
    (HEAD + f"seed: {'9' * 5000}\n", 3, "seed is"),
    (HEAD + f"max_steps: {10**30}\n", 3, "The number is too large"),
    (HEAD + "max_steps: 1_000\n", 3, "write 1000 without quotes"),
    (HEAD + "max_steps: 0x1G\n", 3, "max_steps is '0x1G'"),
    (HEAD + "max_steps: true\n", 3, "max_steps is true"),
    (HEAD + "packing: no\n", 3, "YAML 1.2 reads yes, no, on and off as texts"),
    (HEAD + "packing: 'true'\n", 3, "packing is 'true'"),
    (HEAD + "method: LoRA\n", 3, "method is 'LoRA'; it takes lora or full"),
    (HEAD + "memory_limit: 6XB\n", 3, "memory_limit is '6XB'"),
    (HEAD + "target_modules: [q_proj, 3]\n", 3, "target_modules is"),
    (HEAD + "dataset_columns: [a]\n", 3, "dataset_columns is"),
    (HEAD + "lr_scheduler_kwargs: {power: .inf}\n", 3, "finite"),
    (HEAD + "output_dir: ''\n", 3, "output_dir is ''"),
    (HEAD + 'output_dir: "a\\0b"\n', 3, "It holds control characters"),
    (HEAD + f"output_dir: {'x' * 400}\n", 3, "A name in it is longer"),
    ("model: [m]\ndataset: d\n", 1, "model is"),
    ("model:\ndataset: d\n", 1, "model is empty (null)"),
    # Conflicts.
    (HEAD + "lr: 1e-4\nlearning_rate: 1e-4\n", 4, "both set learning_rate"),
    (HEAD + "bf16: true\nfp16: true\n", 4, "both set precision"),
    (HEAD + "base_model: other\n", 3, "both set model"),
]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert "bug of trimtab" not in captured.err
    assert not any(ord(character) < 32 for character in captured.err.replace("\n", ""))
    return captured.err


@pytest.mark.parametrize(
    ("text", "line", "words"), BAD_TEXTS, ids=[words for _, _, words in BAD_TEXTS]
)
def test_each_bad_configuration_is_refused_by_file_and_line(
    text: str, line: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(text.encode())
    message = told(capsys, "plan", "--quick", str(file))
    assert f"{file}:{line}: " in message
    assert words in message
    assert len(message) < 500 + len(str(file))


@pytest.mark.parametrize("verb", ["train", "plan", "inspect"])
def test_every_verb_refuses_alike(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(HEAD + "learning_rte: 1e-4\nseed: x\n")
    lines = told(capsys, verb, str(file)).splitlines()
    assert lines[0] == "Error: the configuration has 2 problems:"
    assert lines[1].startswith(f"{file}:3: 'learning_rte' is no hyperparameter")
    assert lines[2].startswith(f"{file}:4: seed is 'x'")


def missing(file: Path) -> None:
    pass


def folder(file: Path) -> None:
    file.mkdir()


def endless(file: Path) -> None:
    file.symlink_to("/dev/zero")


def itself(file: Path) -> None:
    file.symlink_to(file)


def large(file: Path) -> None:
    file.write_bytes(b"#" * (1 << 20))


def latin(file: Path) -> None:
    file.write_bytes(b"model: caf\xe9\n")


def utf16(file: Path) -> None:
    file.write_bytes(HEAD.encode("utf-16"))


def pickled(file: Path) -> None:
    file.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.")


@pytest.mark.parametrize("make", [missing, folder, endless, itself, large, latin, utf16, pickled])
def test_what_is_no_configuration_file_is_named(
    make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    make(file)
    message = told(capsys, "plan", "--quick", str(file))
    assert str(file) in message
    assert message.count("\n") == 1


def test_an_empty_configuration_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"")
    message = told(capsys, "plan", "--quick", str(file))
    assert "model is not set" in message
    assert "dataset is not set" in message


def test_a_bomb_of_aliases_is_refused_while_it_is_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(LAUGHS)
    started = time.process_time()
    told(capsys, "plan", "--quick", str(file))
    assert time.process_time() - started < 60


NAMES = st.sampled_from([*catalogue(), *aliases(), *FOREIGN, "learning_rte", "<<", "?"])
SCALARS = st.sampled_from(
    [
        *(
            "1e-4",
            "no",
            "010",
            "0x",
            ".nan",
            "-.inf",
            "~",
            "auto",
            "none",
            "6GiB",
            "1_0",
            "!!int x",
        ),
        *("&a 1", "*a", "'", '"\\', "|", ">-", "[", "{", "[]", "{a: 1}", "!t", "# c", "%", "@"),
        *("9" * 400, "x" * 300, "\x85", "\u2028", "\x00", "\x1b", "é\u202e", "- a", "? b", "---"),
    ]
)
LINES = st.builds("{}: {}".format, NAMES, SCALARS | st.text(max_size=8)) | SCALARS
NEARLY_VALID = st.lists(LINES, max_size=8).map(
    lambda lines: (HEAD + "\n".join(lines)).encode(errors="surrogatepass")
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid configuration with some of its bytes changed, left out, doubled or put in."""
    content = (HEAD + "lr: 1e-4\ntarget_modules: [q_proj]\ndataset_columns: {prompt: q}\n").encode()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        put_in = draw(
            st.binary(max_size=3) | st.sampled_from([b"\n", b"\t", b": ", b"\r", b"\x00"])
        )
        content = content[:at] + put_in + content[at + draw(st.integers(0, 3)) :]
    return content


@given(content=st.binary(max_size=80) | NEARLY_VALID | mutated())
@example(content=b"\xef\xbb\xbf\xef\xbb\xbfmodel: m")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_as_a_configuration_give_exit_2_or_what_lies_behind_it(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    code = run(["plan", "--quick", str(file)])
    captured = capsys.readouterr()
    assert code == 2, (content, captured.err)
    assert captured.err.startswith("Error: ")
    assert "bug of trimtab" not in captured.err
