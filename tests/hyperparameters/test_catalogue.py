from __future__ import annotations

import subprocess
import sys

import pytest

from trimtab.hyperparameters.catalogue import aliases, catalogue, nearest_names
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.hyperparameters.declaration import AUTO
from trimtab.hyperparameters.translations import FOREIGN, SPELLINGS

GUIDE_ROWS = {1, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13}
"""The rows of the practitioner's guide that speak of a setting of their own."""


def test_every_field_has_an_entry() -> None:
    assert list(catalogue()) == list(TrainingConfig.model_fields)


def test_only_the_model_and_the_rows_are_required() -> None:
    assert [name for name, entry in catalogue().items() if entry.required] == ["model", "dataset"]


def test_every_row_of_the_guide_has_a_hyperparameter() -> None:
    rows = {entry.declaration.guide_row for entry in catalogue().values()}
    assert rows.issuperset(GUIDE_ROWS)


def test_what_may_be_auto_says_how_it_is_decided() -> None:
    for entry in catalogue().values():
        may_be_auto = "auto" in entry.domain.replace(" ", ",").split(",")
        assert may_be_auto == entry.has_auto, entry.name
        if entry.default == AUTO:
            assert entry.has_auto, entry.name


def test_what_may_be_auto_says_what_is_known_of_it() -> None:
    for entry in catalogue().values():
        assert entry.declaration.evidence or not entry.has_auto, entry.name


def test_a_row_of_the_guide_is_told_in_words() -> None:
    for entry in catalogue().values():
        declaration = entry.declaration
        assert (declaration.guide is None) == (declaration.guide_row is None), entry.name


def test_declarations_are_sentences() -> None:
    for entry in catalogue().values():
        texts = (
            entry.declaration.meaning,
            entry.declaration.auto,
            entry.declaration.raising,
            entry.declaration.lowering,
            entry.declaration.guide,
            entry.declaration.evidence,
        )
        for text in texts:
            assert text is None or text.endswith("."), (entry.name, text)
            assert text is None or "  " not in text, (entry.name, text)


def test_numbers_say_what_moving_them_does() -> None:
    exempt = {"seed", "data_seed", "lr_scheduler_kwargs"}
    for entry in catalogue().values():
        if "number" in entry.domain and entry.name not in exempt:
            assert entry.declaration.raising, entry.name
            assert entry.declaration.lowering, entry.name


def test_defaults_are_in_their_domain() -> None:
    values = {name: entry.default for name, entry in catalogue().items() if not entry.required}
    config = TrainingConfig.model_validate({"model": "m", "dataset": "d", **values})
    assert config == TrainingConfig(model="m", dataset="d")


def test_names_do_not_collide() -> None:
    assert not set(FOREIGN) & (set(catalogue()) | set(aliases()))
    assert set(SPELLINGS) <= set(catalogue())
    assert set(aliases().values()) <= set(catalogue())


@pytest.mark.parametrize(
    ("slip", "name"),
    [
        ("learning_rte", "learning_rate"),
        ("lerning-rate", "learning_rate"),
        ("Learning_Rate", "learning_rate"),
        ("modle", "model"),
        ("data_set", "dataset"),
        ("epoch", "num_train_epochs"),
        ("beta1", "adam_beta1"),
        ("warmup", "warmup_steps"),
        ("micro_batch_sise", "per_device_train_batch_size"),
        ("gradient_acumulation_steps", "gradient_accumulation_steps"),
        ("max_seq_lenght", "max_length"),
        ("lora_rnk", "lora_r"),
        ("gradient_checkpoint", "activation_checkpointing"),
        ("load_in_4bits", "load_in_4bit"),
    ],
)
def test_a_slip_finds_its_name_first(slip: str, name: str) -> None:
    assert nearest_names(slip)[0] == name


@pytest.mark.parametrize("word", ["reasoning_effort", "temperature", "banana", "x", ""])
def test_strangers_find_nothing(word: str) -> None:
    assert nearest_names(word) == []


def test_at_most_n_names_are_near() -> None:
    assert len(nearest_names("batch_sizes", n=2)) == 2


def test_no_heavy_library_is_loaded() -> None:
    code = (
        "import sys, trimtab.hyperparameters.layers, trimtab.hyperparameters.rendering;"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'numpy'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
