"""`trimtab export`: a plan in another tool's words, a result in another tool's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.common import Arguments, Debug, Json, observing, print_json
from trimtab.cli.configs import AllowLossy, Dialect, Foreign, TheirDefaults, config_and_options
from trimtab.errors import ConfigError

if TYPE_CHECKING:
    from trimtab.engine.observer import Observer
    from trimtab.planning.plan import Plan

CONFIGS = ("axolotl", "llamafactory", "trl")
RESULTS = ("merged", "gguf", "ollama")
QUANTIZATIONS = ("f32", "f16", "bf16", "q8_0")


def export(
    arguments: Arguments = None,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="merged, gguf or ollama (a run's result); trl, axolotl or "
            "llamafactory (a run's, a plan's or a CONFIG's plan).",
        ),
    ] = "merged",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="The folder to write; RUN/exports/TO or exports/TO if left out."
        ),
    ] = None,
    quantization: Annotated[
        str, typer.Option("--quantization", help="Of GGUF's matrices: f32, f16, bf16 or q8_0.")
    ] = "f16",
    repository: Annotated[
        str | None,
        typer.Option("--push-to-hub", metavar="USER/NAME", help="Send the folder to the Hub."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Plan a CONFIG without measuring.")
    ] = False,
    dialect: Dialect = None,
    allow_lossy: AllowLossy = False,
    their_defaults: TheirDefaults = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """A run's result for other programs, or a plan as another tool's config.

    What was written is read back and asked 20 prompts, and the answers are compared.
    """
    given = arguments or []
    with observing(json_) as observer:
        if to in CONFIGS:
            if repository is not None:
                raise ConfigError("--push-to-hub goes with --to merged, gguf or ollama.")
            foreign = Foreign(dialect, allow_lossy, their_defaults)
            told = exported_config(given, to, output, foreign, observer, quick=quick)
        elif to in RESULTS:
            if quantization not in QUANTIZATIONS:
                raise ConfigError(
                    f"--quantization is {quantization!r}; it takes {', '.join(QUANTIZATIONS)}."
                )
            told = exported_result(
                _only_run(given),
                to,
                output,
                observer,
                quantization=quantization,
                repository=repository,
                dry_run=dry_run,
            )
        else:
            raise ConfigError(
                f"--to is {to!r}.", hint=f"It takes {', '.join((*RESULTS, *CONFIGS))}."
            )
    if json_:
        print_json(told)
    else:
        typer.echo(told["path"])


def _only_run(arguments: Sequence[str]) -> Path:
    if len(arguments) != 1:
        raise ConfigError("a result is exported from one run.", hint="trimtab export RUN --to gguf")
    return Path(arguments[0])


def exported_config(
    arguments: Sequence[str],
    tool: str,
    output: Path | None,
    foreign: Foreign,
    observer: Observer,
    *,
    quick: bool,
) -> dict[str, object]:
    """Write the configuration; what is told as JSON."""
    from trimtab.cli.console import Consoles
    from trimtab.cli.import_screen import losses_table, show_differences
    from trimtab.interop.exporting import TITLES, export_config, refuse_taken_folder

    source = Path(arguments[0]) if arguments else None
    folder = output or _default_folder(source, tool)
    refuse_taken_folder(folder)
    plan = _plan(arguments, foreign, observer, quick=quick)
    exported = export_config(plan, tool, folder)
    console = Consoles().err
    if exported.not_carried:
        console.print(losses_table(exported.not_carried))
    show_differences(console, exported.differences, TITLES[tool])
    command = exported.command.format(file=exported.file)
    console.print(f"Start it with: {command}", markup=False)
    return {
        "path": str(exported.file),
        "command": command,
        "keys": dict(exported.keys),
        "not_carried": [
            {"name": one.name, "why": one.why, "changes_result": one.changes_result}
            for one in exported.not_carried
        ],
        "differences": [difference.why for difference in exported.differences],
    }


def _default_folder(source: Path | None, to: str) -> Path:
    """Inside a run where one is exported; else under `exports/`."""
    if source is not None and (source / "plan.json").is_file():
        return source / "exports" / to
    return Path("exports") / to


def _plan(arguments: Sequence[str], foreign: Foreign, observer: Observer, *, quick: bool) -> Plan:
    """A run's plan, a plan's JSON as `trimtab plan --json` prints it, or a configuration's plan."""
    import trimtab
    from trimtab.hyperparameters.options import split_options
    from trimtab.planning.plan import Plan
    from trimtab.runs.folder import open_run
    from trimtab.workflow.records import read_plan

    positional, options = split_options(arguments)
    source = Path(positional[0]) if positional else Path()
    if positional and source.is_dir():
        _refuse_changes(positional, options)
        return read_plan(open_run(source))
    if positional and source.suffix == ".json" and source.is_file():
        record = _read_json(source)
        if "decisions" in record:
            _refuse_changes(positional, options)
            try:
                return Plan.from_json(record)
            except (KeyError, TypeError, ValueError) as error:
                raise ConfigError(
                    f"the plan cannot be read: {error}.", where=str(source)
                ) from error
    config, options = config_and_options(arguments, foreign)
    return trimtab.plan(config, options=options, observer=observer, quick=quick)


def _refuse_changes(positional: Sequence[str], options: Sequence[tuple[str, str]]) -> None:
    """What was planned is exported as it is, one plan at a time."""
    if len(positional) > 1:
        raise ConfigError(
            f"one run, plan or CONFIG is exported, and {len(positional)} came: "
            f"{', '.join(positional)}."
        )
    if options:
        named = ", ".join(f"--{name.replace('_', '-')}" for name, _ in options)
        raise ConfigError(
            f"{positional[0]} is planned already, and {named} would change its plan.",
            hint="Export the CONFIG with it, or leave it out.",
        )


def _read_json(file: Path) -> dict[str, object]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"this is no JSON: {error}.", where=str(file)) from error
    return record if isinstance(record, dict) else {}


def exported_result(
    run: Path,
    to: str,
    output: Path | None,
    observer: Observer,
    *,
    quantization: str,
    repository: str | None,
    dry_run: bool,
) -> dict[str, object]:
    """Write the result, compare it, send it where asked; what is told as JSON."""
    from trimtab.cli.console import Consoles
    from trimtab.interop.exporting import refuse_taken_folder
    from trimtab.interop.hub import check_repository, push_to_hub
    from trimtab.interop.results import export_result

    folder = output or _default_folder(run, to)
    refuse_taken_folder(folder)
    if repository is not None:
        check_repository(repository)
    done = export_result(run, to, folder, observer, quantization=quantization)  # type: ignore[arg-type]
    told: dict[str, object] = {
        "path": str(folder),
        "num_prompts": done.comparison.num_prompts,
        "num_same_answers": done.comparison.num_same_answers,
        "max_logit_difference": done.comparison.max_logit_difference,
        "parting_gaps": list(done.comparison.parting_gaps),
        "notes": list(done.notes),
    }
    console = Consoles().err
    for sentence in (done.comparison.sentence, *done.notes):
        console.print(sentence, markup=False)
    if repository is not None:
        upload = push_to_hub(folder, repository, dry_run=True)
        told["upload"] = dict(upload.files)
        console.print(
            f"{'Would send' if dry_run else 'Sending'} {len(upload.files)} files, "
            f"{upload.num_bytes / 2**20:,.1f} MiB, to {repository}:",
            markup=False,
        )
        for name, size in upload.files:
            console.print(f"  {size:>14,}  {name}", markup=False)
        if not dry_run:
            told["address"] = push_to_hub(folder, repository).address
    return told
