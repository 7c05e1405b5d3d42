"""The folder of a search: what it was asked, the plan that it moves, its trials and its result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trimtab.errors import ConfigError
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.fingerprint import digest
from trimtab.planning.plan import Plan
from trimtab.runs.atomic import write_json, write_text
from trimtab.runs.folder import refuse_taken, safe_model_name
from trimtab.search.record import TuneResult
from trimtab.workflow.fingerprinting import identity_of


@dataclass(frozen=True, slots=True)
class TuneFolder:
    """The files by name; `root` is the folder. It is no run: there is no plan.json."""

    root: Path

    @property
    def config_yaml(self) -> Path:
        return self.root / "config.yaml"

    @property
    def base_json(self) -> Path:
        """What was asked, and the plan whose settings are moved."""
        return self.root / "base.json"

    @property
    def trials_db(self) -> Path:
        return self.root / "trials.db"

    @property
    def tune_json(self) -> Path:
        return self.root / "tune.json"

    def result(self) -> TuneResult | None:
        """What a finished search came to. Raises ConfigError where the file is damaged."""
        if not self.tune_json.is_file():
            return None
        try:
            return TuneResult.from_json(json.loads(self.tune_json.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the result cannot be read: {type(error).__name__}: {error}.",
                where=str(self.tune_json),
                hint="It is damaged, or another version of trimtab wrote it; choose another "
                "output_dir.",
            ) from error

    def begun(self, asked: Asked) -> Plan | None:
        """The plan of the search that was begun here; None where none was.

        Raises ConfigError where the folder holds another search, or anything else.
        """
        if not self.base_json.is_file():
            refuse_taken(self.root)
            return None
        try:
            base = json.loads(self.base_json.read_text(encoding="utf-8"))
            plan = Plan.from_json(base["plan"])
            is_the_same = base["asked"] == asked.digest
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the search's plan cannot be read: {type(error).__name__}: {error}.",
                where=str(self.base_json),
                hint="It is damaged, or another version of trimtab wrote it; choose another "
                "output_dir.",
            ) from error
        if not is_the_same:
            raise ConfigError(
                "output_dir holds a search of another configuration, budget or sampler, or of "
                "other rows or another model.",
                where=str(self.root),
                hint="Choose another output_dir, or ask as before to go on with that one.",
            )
        return plan

    def begin(self, asked: Asked, plan: Plan) -> None:
        write_text(self.config_yaml, plan.config_yaml)
        write_json(self.base_json, {"asked": asked.digest, "plan": plan.to_json()})


@dataclass(frozen=True)
class Asked:
    """One search as it was asked for: asked alike again, of the same rows and model, it goes on."""

    resolved: ResolvedConfig
    names: Sequence[str]
    budget: float
    num_trials: int | None
    sampler: str

    @cached_property
    def digest(self) -> str:
        asked = [list(self.names), self.budget, self.num_trials, self.sampler]
        return digest([*identity_of(self.resolved.config), *asked])

    @property
    def folder(self) -> TuneFolder:
        """Where it lies: the output_dir, or a folder under runs/ that is named after all of it."""
        config = self.resolved.config
        if config.output_dir != "auto":
            return TuneFolder(Path(config.output_dir))
        name = f"tune-{safe_model_name(config.model)}-{config.method}-{self.digest[:8]}"
        return TuneFolder(Path("runs") / name)
