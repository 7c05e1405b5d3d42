from __future__ import annotations

from importlib.util import find_spec

import pytest

import trimtab
from trimtab.errors import ConfigError
from trimtab.hyperparameters.packages import OPTIMIZER_PACKAGES, check_optimizer_package


@pytest.mark.parametrize("optim", list(OPTIMIZER_PACKAGES))
def test_a_package_that_is_missing_is_named_with_the_way_to_install_it(
    optim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.hyperparameters.packages.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"optim: {optim} needs .*pip install 'trimtab\["):
        check_optimizer_package(optim)
    check_optimizer_package("adamw")


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_a_plan_that_measures_asks_for_it_before_anything_else() -> None:
    with pytest.raises(ConfigError, match="bitsandbytes"):
        trimtab.plan({"model": "no/model", "dataset": "none.jsonl", "optim": "adamw_8bit"})
