"""Does a setting matter here? A paired experiment with a verdict.

The room is called as the function is: `trimtab.study(config, "learning_rate", [1e-4, 3e-4])`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtab.study.design import DEFAULT_EQUIVALENCE_MARGIN, DEFAULT_SEEDS

if TYPE_CHECKING:
    from trimtab.engine.observer import Observer
    from trimtab.study.guide_result import GuideResult
    from trimtab.study.result import StudyResult
    from trimtab.workflow.planning import ConfigLike

__all__ = ["study", "study_guide"]


def study(
    config: ConfigLike | None,
    name: str,
    values: Sequence[Any],
    *,
    options: Sequence[tuple[str, str]] = (),
    seeds: int = DEFAULT_SEEDS,
    retune: bool = False,
    equivalence_margin: float = DEFAULT_EQUIVALENCE_MARGIN,
    in_process: bool = False,
    observer: Observer | None = None,
) -> StudyResult:
    """Compare values of one hyperparameter, everything else held, over seeds that they share.

    The first value is the reference. A run of each value and seed is trained and scored on the same
    held-out rows, and the differences by seed give an interval and a verdict: better, worse,
    equivalent (within `equivalence_margin`, a share of the reference's loss) or undecided. `retune`
    searches a learning rate for each value first. Runs are in processes of their own, which alone
    tell their own peak memory, unless `in_process`. Finished runs are kept in the study's folder,
    so that the same call goes on after a stop, and more seeds or values take only what they lack.

    Raises ConfigError, DataError, DoesNotFit as `trimtab.plan` does, and Interrupted for a stop.
    """
    from trimtab.engine.observer import Silent
    from trimtab.study.design import arms_of, check_margin, check_seeds
    from trimtab.study.studying import Wanted, run_study
    from trimtab.workflow.planning import resolve_config

    arms = arms_of(name, values)
    wanted = Wanted(check_seeds(seeds), check_margin(equivalence_margin), retune, in_process)
    return run_study(resolve_config(config, options), arms, wanted, observer or Silent())


def study_guide(
    config: ConfigLike | None,
    *,
    options: Sequence[tuple[str, str]] = (),
    seeds: int = DEFAULT_SEEDS,
    equivalence_margin: float = DEFAULT_EQUIVALENCE_MARGIN,
    in_process: bool = False,
    observer: Observer | None = None,
) -> GuideResult:
    """Try the guide's own claims on this model and these rows: each held, not held or undecided.

    As `study`, with the claims of `trimtab.study.claims` in place of a hyperparameter.
    """
    from trimtab.engine.observer import Silent
    from trimtab.study.design import check_margin, check_seeds
    from trimtab.study.guide import run_guide
    from trimtab.study.studying import Wanted
    from trimtab.workflow.planning import resolve_config

    wanted = Wanted(check_seeds(seeds), check_margin(equivalence_margin), in_process=in_process)
    return run_guide(resolve_config(config, options), wanted, observer or Silent())


class _CallableRoom(ModuleType):
    """A submodule is an attribute of its package from its first import on, and would hide the
    function of the same name there; so it can be called itself."""

    __call__ = staticmethod(study)


sys.modules[__name__].__class__ = _CallableRoom
