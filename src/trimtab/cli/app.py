"""The command `trimtab`: arguments in, the Python functions, screens and exit codes out."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from trimtab.cli.common import (
    HYPERPARAMETERS_HELP,
    TAKES_HYPERPARAMETERS,
    Arguments,
    Debug,
    Json,
    RunArgument,
    complain,
    observing,
    print_json,
)
from trimtab.cli.configs import AllowLossy, Dialect, Foreign, TheirDefaults, config_and_options
from trimtab.cli.entry import ABORTED, EXIT_ABORTED
from trimtab.cli.export_command import export
from trimtab.cli.plan_command import plan
from trimtab.cli.processes import (
    NumProcesses,
    On,
    end_with_launcher,
    follow_quietly,
    is_alone_or_first,
    started_processes,
)
from trimtab.cli.run_end import show_end, told_in_any_case
from trimtab.cli.study_command import study
from trimtab.cli.tune_command import tune
from trimtab.errors import ConfigError, Interrupted, TrimtabError
from trimtab.hyperparameters.options import UnknownOption
from trimtab.models.lean_imports import lean_imports

app = typer.Typer(
    name="trimtab",
    help="Fine-tune a language model with every hyperparameter decided by a measurement.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command; errors become one short paragraph and their exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The command with these arguments; returns its exit code."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="peft|transformers|torch")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    debug = "--debug" in arguments
    try:
        end_with_launcher()
        if not is_alone_or_first():
            return follow_quietly(arguments)
        code = app(args=list(arguments) or ["--help"], standalone_mode=False)
    except UnknownOption as error:
        return _told(_with_its_commands(error), debug, "Error: ")
    except TrimtabError as error:
        return _told(error, debug, "" if isinstance(error, Interrupted) else "Error: ")
    except TyperException as error:
        command = f" {arguments[0]}" if arguments and arguments[0][:1].isalpha() else ""
        told = error.format_message().rstrip(".")
        complain(f"Error: {told}. Try: trimtab{command} --help")
        return ConfigError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_ABORTED
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        complain(
            f"Error: {type(error).__name__}: {error}. This is a bug of trimtab's; "
            "--debug shows where."
        )
        return 1
    # typer makes this code of Ctrl-C in a command; what ends a run has told how to go on.
    if code == EXIT_ABORTED:
        complain(ABORTED)
    return code if isinstance(code, int) else 0


def _with_its_commands(error: UnknownOption) -> ConfigError:
    """Said with the commands that have the option, where others have it."""
    group = typer.main.get_command(app)
    commands: dict[str, Any] = getattr(group, "commands", {})
    option = error.option.replace("_", "-")
    having = [
        f"trimtab {name}"
        for name, command in commands.items()
        if any(option in parameter.opts for parameter in command.params)
    ]
    if not having:
        return error
    return ConfigError(error.what, hint=f"{option} is for {', '.join(having)}. {error.hint}")


def _told(error: TrimtabError, debug: bool, prefix: str) -> int:
    if debug:
        traceback.print_exc()
    complain(f"{prefix}{error}")
    return error.exit_code


def _import_training() -> None:
    """Import what `trimtab.train` is made of; at the first call, most of a command's start."""
    import trimtab

    with lean_imports():
        _ = trimtab.train


@app.command(context_settings=TAKES_HYPERPARAMETERS, epilog=HYPERPARAMETERS_HELP)
def train(
    arguments: Arguments = None,
    dialect: Dialect = None,
    allow_lossy: AllowLossy = False,
    their_defaults: TheirDefaults = False,
    num_processes: NumProcesses = None,
    on: On = "local",
    json_: Json = False,
    debug: Debug = False,
) -> int:
    """Plan, train, guard and report."""
    foreign = Foreign(dialect, allow_lossy, their_defaults)

    def device() -> str:
        from trimtab.workflow.planning import resolve_config

        return resolve_config(*config_and_options(arguments, foreign)).config.device

    code = started_processes(num_processes, on, sys.argv[1:], device=device)
    if code is not None:
        return code
    import trimtab

    config, options = config_and_options(arguments, foreign)
    _import_training()
    with observing(json_) as observer, told_in_any_case(observer, json_):
        summary = trimtab.train(config, options=options, observer=observer)
    show_end(summary, json_)
    return 0


@app.command()
def resume(
    run_folder: RunArgument,
    allow_changed: Annotated[
        bool,
        typer.Option(
            "--allow-changed",
            help="Go on although settings, rows, libraries, model or device are others now.",
        ),
    ] = False,
    num_processes: NumProcesses = None,
    on: On = "local",
    json_: Json = False,
    debug: Debug = False,
) -> int:
    """Go on with an interrupted run, exactly where it was saved."""

    def device() -> str:
        from trimtab.runs.folder import open_run
        from trimtab.workflow.records import read_plan

        return read_plan(open_run(run_folder)).settings().device

    code = started_processes(num_processes, on, sys.argv[1:], device=device)
    if code is not None:
        return code
    import trimtab

    _import_training()
    with observing(json_) as observer, told_in_any_case(observer, json_):
        summary = trimtab.resume(run_folder, allow_changed=allow_changed, observer=observer)
    show_end(summary, json_)
    return 0


@app.command()
def demo(
    output_dir: Annotated[
        Path | None, typer.Option(help="The run folder; runs/ and a name where left out.")
    ] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Teach the embedded model to write docstring summaries, in a few minutes on a CPU."""
    import trimtab

    _import_training()
    with observing(json_) as observer, told_in_any_case(observer, json_):
        summary = trimtab.demo(output_dir=output_dir, observer=observer)
    show_end(summary, json_)


app.command(context_settings=TAKES_HYPERPARAMETERS, epilog=HYPERPARAMETERS_HELP)(plan)


@app.command(context_settings=TAKES_HYPERPARAMETERS, epilog=HYPERPARAMETERS_HELP)
def inspect(
    arguments: Arguments = None,
    rows: Annotated[
        int, typer.Option("--rows", min=0, help="How many rows are shown decoded.")
    ] = 3,
    dialect: Dialect = None,
    allow_lossy: AllowLossy = False,
    their_defaults: TheirDefaults = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """What the model will be trained on: decoded tokens with the mask, counts, problems."""
    import trimtab
    from trimtab.cli.console import Consoles
    from trimtab.cli.screens import show_inspection

    config, options = config_and_options(arguments, Foreign(dialect, allow_lossy, their_defaults))
    with observing(json_) as observer:
        inspection = trimtab.inspect(config, options=options, num_examples=rows, observer=observer)
    if json_:
        print_json(
            {
                "data": inspection.data.to_json(),
                "template": inspection.template_text,
                "bad_rows": [list(row) for row in inspection.bad_rows],
                "warnings": list(inspection.plan.warnings),
            }
        )
    else:
        show_inspection(Consoles().out, inspection)


@app.command()
def generate(
    run_folder: RunArgument,
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; `-` or nothing reads standard input.")
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--file", help="A file with a prompt in each line.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="The longest answer, in tokens.")
    ] = 128,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """What the base and the tuned model answer, side by side."""
    import trimtab
    from trimtab.cli.console import Consoles
    from trimtab.cli.screens import show_answers

    prompts = _prompts(prompt, prompts_file)
    with observing(json_) as observer:
        answers = trimtab.generate(
            run_folder, prompts, max_new_tokens=max_new_tokens, device=device, observer=observer
        )
    if json_:
        print_json(
            [{"prompt": one.prompt, "base": one.base, "tuned": one.tuned} for one in answers]
        )
    else:
        show_answers(Consoles().out, answers)


def _prompts(prompt: str | None, file: Path | None) -> list[str]:
    if file is not None:
        if not file.is_file():
            raise ConfigError("there is no such file.", where=str(file))
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ConfigError(f"not UTF-8 text: {error}.", where=str(file)) from error
        found = [line for line in lines if line.strip()]
    elif prompt is None or prompt == "-":
        if sys.stdin.isatty():
            complain("Type the prompt and end with Ctrl-D.")
        found = [sys.stdin.read().strip()]
    else:
        found = [prompt]
    if not any(found):
        raise ConfigError("there is no prompt.", hint="Give one as an argument, --file or stdin.")
    return found


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, searches, studies.")
    ],
    debug: Debug = False,
) -> None:
    """Write the page of each again, from its folder alone."""
    import trimtab

    for each in runs:
        typer.echo(trimtab.write_report(each))


@app.command()
def explain(
    name: Annotated[
        str | None, typer.Argument(help="A hyperparameter; all where left out.")
    ] = None,
    debug: Debug = False,
) -> None:
    """What a hyperparameter is, what auto does, what the evidence says."""
    from trimtab.hyperparameters.rendering import explain as page
    from trimtab.hyperparameters.rendering import explain_all

    if name is not None:
        typer.echo(page(name))
        return
    for family, entries in explain_all():
        typer.echo(f"\n{family}")
        for entry, meaning in entries:
            typer.echo(f"  {entry:<28} {meaning}")


@app.command()
def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of a config, for editors."""
    from trimtab.hyperparameters.schema import json_schema

    print_json(json_schema())


app.command(context_settings=TAKES_HYPERPARAMETERS, epilog=HYPERPARAMETERS_HELP)(export)
app.command(context_settings=TAKES_HYPERPARAMETERS, epilog=HYPERPARAMETERS_HELP)(tune)
app.command(context_settings=TAKES_HYPERPARAMETERS, epilog=HYPERPARAMETERS_HELP)(study)
