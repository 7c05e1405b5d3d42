"""What the user came for: the best weights, where they look for them."""

from __future__ import annotations

import json
from collections import defaultdict, deque

from trimtab.engine.checkpoint import gathered, load_best, remove_best
from trimtab.models.saving import save_result
from trimtab.runs.atomic import staged_folder
from trimtab.runs.records import EventRecord, RunSummary, Sample
from trimtab.workflow.run_facts import keep_run_facts
from trimtab.workflow.samples import answers
from trimtab.workflow.session import Progress, Session


def hand_over(session: Session, progress: Progress) -> RunSummary:
    """Write the best weights by held-out loss, or the last, with samples and the summary.

    It can be done again from the last checkpoint: what that needs goes only at the very end. The
    first rank does it; others take part where they hold shards.
    """
    settings, job, state, ranks = session.settings, progress.job, progress.state, session.ranks
    folder = session.run.adapter if settings.method == "lora" else session.run.model
    if not ranks.is_first and ranks.holds_replica:
        return session.note_status("done", state, result=folder.name)
    job.optimizer.for_evaluation()
    _take_best(session, progress)
    session.observer.activity("writing the result")
    weights = None if ranks.holds_replica else gathered(job.optimizer.weights, ranks)
    if ranks.is_first:
        with staged_folder(folder) as staged:
            save_result(
                job.model,
                session.materials.tokenizer,
                staged,
                base=session.materials.source,
                chat_template=session.materials.corpus.template.source_text,
                pad_token=settings.pad_token,
                weights=weights,
            )
    session.observer.activity_done()
    if session.prompts:
        session.observer.activity("asking the tuned model")
        tuned = answers(job.model, session.materials, session.prompts, settings)
        if ranks.is_first:
            session.note_samples(_base_answers(session), [*tuned])
        session.observer.activity_done()
    if not ranks.is_first:
        return session.note_status("done", state, result=folder.name)
    keep_run_facts(session.run, session.asked_config, session.observer, step=state.num_updates)
    summary = session.note_status("done", state, result=folder.name)
    remove_best(session.run.checkpoints)
    return summary


def _take_best(session: Session, progress: Progress) -> None:
    """Put the best weights into the model; where they are damaged, the last ones stay."""
    state = progress.state
    if state.best_step is None or state.best_step == state.num_updates:
        return
    problems = load_best(session.run.checkpoints, progress.job.optimizer, state.best_step)
    if not problems:
        session.observer.noted(
            f"Keeping the weights of update {state.best_step}, the best by held-out loss."
        )
        return
    session.observer.happened(
        EventRecord(
            "best weights refused",
            state.best_step,
            {"problems": list(problems), "kept": state.num_updates},
        )
    )
    state.best_step = None
    state.best_eval_loss = None


def _base_answers(session: Session) -> list[str | None]:
    """What the base answered to each prompt when the run began; None to those it was not asked.

    Other samples are wanted than then where the number of them, or the rows, have changed.
    """
    asked: defaultdict[tuple[str, str], deque[str | None]] = defaultdict(deque)
    for sample in _samples_of_the_base(session):
        asked[sample.prompt, sample.reference].append(sample.base)
    found = [asked[prompt.text, prompt.reference] for prompt in session.prompts]
    return [answers_of_base.popleft() if answers_of_base else None for answers_of_base in found]


def _samples_of_the_base(session: Session) -> list[Sample]:
    try:
        records = json.loads(session.run.samples_json.read_text(encoding="utf-8"))
        return [Sample.from_json(record) for record in records]
    except (FileNotFoundError, ValueError, TypeError):
        # What is trained does not depend on it.
        return []
