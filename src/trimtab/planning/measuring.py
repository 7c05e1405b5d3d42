"""Which measurements a draft of a plan still wants, and which of them its effort can pay for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimtab.hyperparameters.config import Precision
from trimtab.planning.discarding import family_of
from trimtab.planning.draft import Draft
from trimtab.planning.effort import Effort
from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize, examples_per_update, mean_examples
from trimtab.planning.noise import MIN_UPDATES, PROBED_EXAMPLES
from trimtab.planning.peak_memory import PeakMemory
from trimtab.planning.questions import (
    NoiseScaleQuestion,
    PrecisionQuestion,
    Question,
    RateRangeQuestion,
    RunQuestion,
    Trial,
    TrialsQuestion,
)
from trimtab.planning.rules.choice import Choice
from trimtab.planning.rules.learning_rate import learning_rate_prior, range_rates
from trimtab.planning.rules.memory import Checkpointing
from trimtab.planning.rules.precision import rate_id, worth_trying
from trimtab.planning.trials import measured_points

NUM_UPDATES = 2
START_S = {"cpu": 5.0, "cuda": 15.0}
"""What importing the libraries that measure takes, as seen on two cores (CUDA: assumed): once for a
question, whose processes are forked from one that has; each loads the model by itself."""
READ_BYTES_PER_S = 1e9
UPDATE_LIMIT_S = 6.0
"""The longest update that is tried where a smaller one can tell: memory and time grow in a line."""
TRIALS_SHARE = 0.6
"""Of the limit; the rest is left to the number formats and the range of learning rates."""
NEAR_LIMIT = 0.5
"""Above this share of the limit by the draft's prediction, recomputation may be needed."""
MOST_OF_MEMORY = 0.9
LIMITED_FAMILIES = {"trials", "precision", "rate_range"}
NOISE_SCALE_S = 60.0
"""Updates beyond the least are probed for the gradient noise scale for as long as this allows."""
MAX_NOISE_UPDATES = 40
PRECISION_TOKENS = 384
"""In one update where number formats are compared: gradients of more tell no more of a format."""
NUM_PRECISION_UPDATES = 3
"""Per format: a gradient, and the better of two updates for the time."""
PRODUCTS_SHARE = 0.5
"""Of an update's time, what products in the format take: 45% was profiled on a CPU."""


def next_measurement(draft: Draft, effort: Effort) -> Question | None:
    """What to measure next for this draft; None where it can stand as it is."""
    if effort.kind == "quick":
        return None
    settings = draft.plan.settings()
    facts = draft.facts
    if settings.parallelism == "shard" and settings.num_ranks > 1:
        # A measuring process is alone, and would have to hold what only shards can.
        return None if "run.key" in facts else RunQuestion(settings)
    if effort.noise_scale and not {"noise.key", "noise.scale_examples"} & facts.by_id.keys():
        return _noise_scale_question(draft)
    limit_s = effort.limit_s(draft.plan.predictions.total_time_s)
    trials = _trials_to_make(draft, effort, limit_s)
    if trials:
        return TrialsQuestion(settings, trials)
    left_s = limit_s - _spent_s(facts)
    if "precision.key" not in facts and (formats := _formats_to_compare(draft, effort, left_s)):
        return PrecisionQuestion(settings, formats)
    if "rate_range.key" not in facts:
        range_s = _range_s(draft, effort)
        if range_s is not None and range_s <= left_s:
            return RateRangeQuestion(settings, range_rates(_prior(draft)))
    return None if "run.key" in facts else RunQuestion(settings)


def _trials_to_make(draft: Draft, effort: Effort, limit_s: float) -> tuple[Trial, ...]:
    """The trials of a first round, or of the checkpointing that the first round has led to.

    None once a trial killed its process, and none where nothing could be measured.
    """
    facts = draft.facts
    points = measured_points(facts)
    chosen: Checkpointing = draft.value("activation_checkpointing")
    is_settled = any(point.checkpointing == chosen for point in points)
    if "trials.failure" in facts or is_settled or any(each.peak_bytes is None for each in points):
        return ()
    choice = draft.choice
    sizes = _sizes_to_try(choice.memory, max(choice.candidates))
    is_each_alone = draft.value("method") == "full" and facts.text("device.kind") == "cpu"
    left_s = max(0.0, TRIALS_SHARE * limit_s - _spent_s(facts))
    made = {point.trial for point in points}
    wanted = _wanted_trials(choice, chosen, sizes, left_s - _start_s(facts))
    load_s = _load_s(facts)
    trials = _within(
        left_s,
        [trial for trial in wanted if trial not in made],
        dict(sizes),
        choice,
        once_s=_start_s(facts) - (load_s if is_each_alone else 0.0),
        each_s=load_s if is_each_alone else 0.0,
    )
    if trials or effort.kind != "measured" or not _may_fit(choice, sizes[0][1], chosen):
        return trials
    return (Trial(chosen, 1),)


def _formats_to_compare(draft: Draft, effort: Effort, left_s: float) -> tuple[Precision, ...]:
    """Those that the time is enough for: where there is a choice, or the plan was asked for.

    On a CPU no plan takes fp16: it is timed for what it tells, and only where that leaves the time
    for the range of rates.
    """
    facts = draft.facts
    is_open = draft.resolved.config.precision == "auto" or effort.kind == "measured"
    time = None if draft.choice.speed is None else draft.choice.speed.time
    if not is_open or time is None:
        return ()
    size = MicroBatchSize(PRECISION_TOKENS, PRECISION_TOKENS, PRECISION_TOKENS**2)
    update_s = time.update_s(size, 1, "off")

    def compared_s(formats: Sequence[Precision]) -> float:
        slowness = sum(_slowness(each, draft.value("precision"), facts) for each in formats)
        return 2 * _start_s(facts) + NUM_PRECISION_UPDATES * slowness * update_s

    formats = worth_trying(facts)
    if facts.text("device.kind") == "cpu" and "fp16" in formats:
        range_s = _range_s(draft, effort) or 0.0
        if compared_s(formats) + range_s > left_s:
            formats = tuple(each for each in formats if each != "fp16")
    return formats if len(formats) > 1 and compared_s(formats) <= left_s else ()


def _slowness(precision: Precision, timed: Precision, facts: Facts) -> float:
    """How many times an update of the format that was timed one in this format may take."""
    if not {rate_id(precision), rate_id(timed)} <= facts.by_id.keys():
        return 1.0
    ratio = facts.number(rate_id(timed)) / facts.number(rate_id(precision))
    return 1.0 + PRODUCTS_SHARE * max(0.0, ratio - 1.0)


def _range_s(draft: Draft, effort: Effort) -> float | None:
    """What the range of rates takes; None where it is not wanted.

    A rate that the user set is tested only where the plan was asked for.
    """
    step_time_s = draft.plan.predictions.step_time_s
    is_open = draft.resolved.config.learning_rate == "auto" or effort.kind == "measured"
    if not is_open or step_time_s is None or "tuned.learning_rate" in draft.facts:
        return None
    num_updates = len(range_rates(_prior(draft))) + 1
    return _start_s(draft.facts) + num_updates * step_time_s


def _noise_scale_question(draft: Draft) -> NoiseScaleQuestion:
    """It comes before the trials, since their sizes follow the global batch.

    As few updates as the interval needs, or as many as a minute has; in micro-batches of 2, since
    two examples keep a device busier than one and leave |G|² hardly less certain.
    """
    settings = draft.plan.settings()
    micro = min(2, settings.per_device_train_batch_size)
    speed = draft.choice.speed
    if speed is None:
        return NoiseScaleQuestion(settings, MIN_UPDATES, PROBED_EXAMPLES, micro, None)
    update_s = speed.time.update_s(
        mean_examples(draft.facts, micro),
        PROBED_EXAMPLES / micro,
        settings.activation_checkpointing,
    )
    most = min(MAX_NOISE_UPDATES, draft.facts.integer("rows.num_examples") // PROBED_EXAMPLES)
    number = max(MIN_UPDATES, min(most, int(NOISE_SCALE_S / update_s)))
    expected_s = _start_s(draft.facts) + number * update_s
    return NoiseScaleQuestion(settings, number, PROBED_EXAMPLES, micro, expected_s)


def _prior(draft: Draft) -> float:
    facts = draft.facts
    return learning_rate_prior(
        draft.resolved,
        facts,
        optim=draft.value("optim"),
        examples_per_update=examples_per_update(facts, draft.value("global_batch_size")),
    )


def _start_s(facts: Facts) -> float:
    """Seconds until a measuring process makes its first update."""
    return START_S[facts.text("device.kind")] + _load_s(facts)


def _load_s(facts: Facts) -> float:
    return 4 * facts.integer("model.num_parameters") / READ_BYTES_PER_S


def _wanted_trials(
    choice: Choice,
    chosen: Checkpointing,
    sizes: Sequence[tuple[int, MicroBatchSize]],
    updates_s: float,
) -> tuple[Trial, ...]:
    """The trials that fix memory and time of these choices, the smallest first; may be none.

    Of the checkpointing that the draft takes: a quarter of the largest micro-batch, the largest,
    and, where gradients are accumulated, the quarter twice in one update. Of the ends of the
    ladder the quarter, and the largest where the limit is near. None is tried whose update would
    be too long, or whose memory is expected beyond the device.
    """
    ends = [option for option in ("off", "full") if option in choice.ladder]
    trials: list[Trial] = []
    for option in dict.fromkeys((chosen, *ends)):
        large = _largest_affordable(sizes, option, choice, updates_s)
        if large is None:
            continue
        small = max(1, large // 4)
        is_needed = option == chosen or _is_near_limit(choice, sizes[-1][0])
        trials += [
            Trial(option, rows) for rows in dict.fromkeys((small, large) if is_needed else (small,))
        ]
        if option == chosen and large < choice.memory.rows_in_update(large):
            trials.append(Trial(option, small, num_micro_batches=2))
    return tuple(trials)


def _within(
    left_s: float,
    trials: Sequence[Trial],
    sizes: Mapping[int, MicroBatchSize],
    choice: Choice,
    *,
    once_s: float,
    each_s: float,
) -> tuple[Trial, ...]:
    """Those that are expected to end in time, in their order, with `once_s` before all and
    `each_s` before each.

    None where the device was not timed, so that nothing can be expected of it.
    """
    if choice.speed is None:
        return ()
    spent = once_s
    taken = []
    for trial in trials:
        update_s = choice.speed.time.update_s(
            sizes[trial.num_rows], trial.num_micro_batches, trial.activation_checkpointing
        )
        cost_s = NUM_UPDATES * update_s + each_s
        if spent + cost_s <= left_s:
            spent += cost_s
            taken.append(trial)
    return tuple(taken)


def _spent_s(facts: Facts) -> float:
    """Seconds that the limited probes of this plan took, whether or not it uses their answers."""
    return sum(fact.cost_s for fact in facts if family_of(fact) in LIMITED_FAMILIES)


def _largest_affordable(
    sizes: Sequence[tuple[int, MicroBatchSize]],
    option: Checkpointing,
    choice: Choice,
    updates_s: float,
) -> int | None:
    """The largest number of rows whose update is short and is expected to fit."""
    if choice.speed is None:
        return None
    for rows, size in reversed(sizes):
        seconds = choice.speed.time.update_s(size, 1, option)
        # A quarter, the largest and the quarter twice: 1.75 times the largest, two updates each.
        is_short = seconds <= min(UPDATE_LIMIT_S, updates_s / 3.5)
        if is_short and _may_fit(choice, size, option):
            return rows
    return None


def _may_fit(choice: Choice, size: MicroBatchSize, option: Checkpointing) -> bool:
    """Whether a trial is expected to leave the machine some memory, whatever the user allows."""
    available = choice.memory.facts.integer("device.memory_available_bytes")
    return choice.memory.arithmetic.peak_bytes(size, option) <= MOST_OF_MEMORY * available


def _is_near_limit(choice: Choice, rows: int) -> bool:
    return choice.memory.worst_case_bytes(rows, "off") > NEAR_LIMIT * choice.room.limit_bytes


def _sizes_to_try(memory: PeakMemory, most_rows: int) -> list[tuple[int, MicroBatchSize]]:
    """Micro-batches of the longest rows: the powers of two below `most_rows`, and that."""
    rows = {1 << exponent for exponent in range(most_rows.bit_length())} | {most_rows}
    rows |= {max(1, each // 4) for each in rows}
    return [(each, memory.largest(each)) for each in sorted(rows)]
