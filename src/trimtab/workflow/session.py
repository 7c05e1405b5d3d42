"""What stays the same through one run, and the status that is always true on disk."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from trimtab.engine.distributed import Ranks
from trimtab.engine.loop import Job
from trimtab.engine.memory import give_back_freed_memory, peak_memory_bytes
from trimtab.engine.observer import Observer, Silent
from trimtab.engine.state import TrainingState
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.models.adapters import causal_model
from trimtab.planning.plan import Plan
from trimtab.planning.recipe import Recipe
from trimtab.planning.settings import Settings
from trimtab.probes.device import choose_device
from trimtab.runs.atomic import write_json
from trimtab.runs.folder import RunFolder
from trimtab.runs.ledger import Ledger
from trimtab.runs.records import RunSummary, Sample, Status
from trimtab.workflow.fingerprinting import DATA_SETTINGS
from trimtab.workflow.materials import Materials
from trimtab.workflow.planning import PlannedRun
from trimtab.workflow.recording import RecordingObserver
from trimtab.workflow.samples import SamplePrompt, sample_prompts
from trimtab.workflow.tracking import TrackingObserver, tracking
from trimtab.workflow.training_rows import TrainingRows, rows_question

VERSIONED_PACKAGES = ("trimtab", "torch", "transformers", "peft", "tokenizers", "safetensors")


@dataclass
class Progress:
    """The job and the state in force; a change of recipe replaces them."""

    job: Job
    state: TrainingState

    def release_job(self) -> None:
        """Let go of the job's weights and optimizer state, before another job takes its place."""
        for optimizer in self.job.optimizer.optimizers:
            optimizer.state.clear()
        trained = [each for each in self.job.model.parameters() if each.requires_grad]
        # Beside the model's own there may be masters.
        for weight in (*trained, *self.job.optimizer.parameters):
            weight.data = weight.data.new_empty(0)
        causal_model(self.job.model).to_empty(device="meta")


@dataclass(frozen=True)
class Session:
    """One run on one rank: its plan, what it was measured on, and who is told.

    `settings` are the plan's. Ranks behind the first write nothing, and their observer is silent.
    """

    plan: Plan
    settings: Settings
    materials: Materials
    rows: TrainingRows
    run: RunFolder
    observer: Observer
    prompts: tuple[SamplePrompt, ...]
    tracker: TrackingObserver
    ranks: Ranks

    @property
    def asked_config(self) -> TrainingConfig:
        """The materials' configuration with what the plan decided about rows left open again.

        That is how the next plan will ask for what this run found out.
        """
        decided = [name for name in DATA_SETTINGS if self.plan.decision(name).origin != "user"]
        fields = TrainingConfig.model_fields
        defaults = {name: fields[name].get_default(call_default_factory=True) for name in decided}
        return self.materials.config.model_copy(update=defaults)

    def note_samples(self, base: list[str | None], tuned: list[str | None]) -> None:
        """Write what the base and the tuned model answer to the sample prompts."""
        if not self.ranks.is_first:
            return
        samples = [
            Sample(prompt.text, prompt.reference, base_answer, tuned_answer)
            for prompt, base_answer, tuned_answer in zip(self.prompts, base, tuned, strict=True)
        ]
        write_json(self.run.samples_json, [sample.to_json() for sample in samples])

    def note_status(
        self,
        status: Status,
        state: TrainingState,
        *,
        stopped_by: str | None = None,
        result: str | None = None,
    ) -> RunSummary:
        """How things stand now, in summary.json too."""
        totals = state.totals
        trained = totals.num_trainable_tokens
        kept_loss = state.best_eval_loss if state.best_step is not None else state.eval_loss
        summary = RunSummary(
            status=status,
            run=str(self.run.root),
            num_steps=state.num_updates,
            num_tokens=totals.num_tokens,
            train_loss=totals.loss_nats / trained if trained else None,
            eval_loss=kept_loss if state.num_updates else None,
            base_eval_loss=state.base_eval_loss,
            tokens_per_s=totals.tokens_per_s(),
            peak_memory_bytes=peak_memory_bytes(self.materials.device),
            stopped_by=stopped_by,
            decisions_changed=state.recipe.changed_from(Recipe.of(self.settings)),
            num_skipped_updates=state.num_skipped_updates,
            num_rewinds=state.num_rewinds,
            best_step=state.best_step,
            seconds=totals.run_seconds,
            result=result,
            versions={name: version(name) for name in VERSIONED_PACKAGES},
        )
        if self.ranks.is_first:
            write_json(self.run.summary_json, summary.to_json())
        return summary


def open_session(planned: PlannedRun, run: RunFolder, shown: Observer, ranks: Ranks) -> Session:
    """Load the rows that the plan trains on, and open the run's ledgers on the first rank.

    Raises ConfigError where the plan's device is not there.
    """
    settings = planned.plan.settings()
    choose_device(settings.device)
    if ranks.is_first:
        # They are read while the rows are tokenised.
        _ = planned.materials.model_digests
    rows = planned.materials.rows(rows_question(settings))
    report_to = settings.report_to if ranks.is_first else "none"
    tracker = tracking(shown, report_to, run.root, planned.plan)
    recording = RecordingObserver(
        Ledger(run.metrics_jsonl),
        Ledger(run.events_jsonl),
        tracker,
        planned.materials.corpus.sources,
    )
    prompts = sample_prompts(planned.materials, rows, settings)
    # A resumed run has not planned, which ends with this; its plan counts on as much.
    give_back_freed_memory(planned.materials.device)
    return Session(
        plan=planned.plan,
        settings=settings,
        materials=planned.materials,
        rows=rows,
        run=run,
        observer=recording if ranks.is_first else Silent(),
        prompts=prompts,
        tracker=tracker,
        ranks=ranks,
    )
