"""What the planner still needs to know; the caller measures and asks again.

Each question is answered by facts of the ids listed under it. Percentiles are of the untruncated
row lengths in tokens; a row is one example.

`DeviceQuestion`
    device.kind (`cpu` | `cuda`), device.name, device.num_threads, device.memory_bytes,
    device.memory_available_bytes, device.native.bf16 / .fp16 (bool: not emulated), and where the
    device was timed device.memory_bandwidth_bytes_per_s,
    device.matmul_flops_per_s.fp32 / .bf16 / .fp16 (absent where it does not run the format)
`ModelQuestion`
    model.architecture, model.num_parameters, model.num_embedding_parameters,
    model.head_is_tied (bool: the output head shares the embedding's weights), model.head_is_plain
    (bool: logits leave as it made them), model.num_layers, model.hidden_size,
    model.vocab_size, model.max_position_embeddings,
    model.linear_modules (list of [name, in_features, out_features, count]; the name has a range
    such as 0-29 for each number in which the modules' names differ),
    model.packing_refusal (text, None where packed attention is had),
    model.pad_token (the token that `pad_token` resolves to), model.pad_token_id,
    model.pad_token_because, model.chat_template (bool)
`DataQuestion`
    data.num_rows, data.num_bad_rows, data.num_duplicate_rows, data.format, data.format_because,
    data.num_tokens, data.num_trainable_tokens, data.length_mean, data.length_max,
    data.length_quantiles (201 lengths: 0, 0.5, … 100%), data.truncation (a list of
    [max_length, rows cut, tokens cut, trainable tokens cut] at candidate lengths),
    data.templated (bool), data.template_because,
    data.eval_num_rows (only where eval_dataset is a path)
`TrainingRowsQuestion` (after hold-out, truncation and packing)
    rows.digest (of all tokens; of the rows' text, the tokenizer and the settings where rows are
    tokenised as the run goes, and token counts are then estimates with a spread),
    rows.key (the question's `key`: facts under another key are no answer),
    rows.num_examples, rows.num_rows (packed rows where packing is on, else the examples),
    rows.num_tokens, rows.num_trainable_tokens, rows.num_truncated, rows.num_tokens_cut,
    rows.num_trainable_tokens_cut, rows.num_rows_losing_targets,
    rows.num_left_without_target (rows, or pieces of split ones, in which nothing is trained on),
    rows.num_dropped (dropped as too long or left without a target),
    rows.num_copies_removed (training rows with the tokens of a held-out one),
    rows.length_max, rows.length_mean,
    rows.trainable_length_max (most trainable tokens in one row),
    rows.eval_num_examples, rows.eval_num_tokens,
    rows.eval_num_truncated, rows.eval_num_dropped (held-out rows left without a target),
    rows.longest_lengths (tokens of the longest batch rows, at most 256 of them, falling),
    rows.most_scored (scored positions of the batch rows that have most, as many, falling)
`RunQuestion` (the run's own micro-batches, in its seeded order; of several ranks the first's)
    run.key, run.micro_batches (the largest few by each measure, as lists of
    [num_tokens, num_scored, sum_length_squared]), run.num_micro_batches (in all its updates),
    run.num_tokens, run.num_scored, run.sum_length_squared (means over the updates)
`TrialsQuestion` (in a process of its own, by the training step itself)
    trials.key, trials.process_bytes (the planning process's resident set before a model is loaded;
    0 on CUDA), trials.base_bytes (the same of the process that measured), trials.loaded_bytes (its
    peak once the model was loaded), trials.points (a list of mappings: a `Trial`'s fields, and
    num_tokens, num_scored, sum_length_squared of one micro-batch, update_s, a list of seconds by
    update, and peak_bytes; peak_bytes is None where the process died of the trial),
    or trials.failure (a sentence) where nothing could be measured
`PrecisionQuestion`
    precision.key, precision.update_s.FORMAT (seconds of one update on the same rows),
    precision.gradient_cosine.FORMAT, precision.gradient_norm_ratio.FORMAT (against fp32),
    precision.overflows.FORMAT (bool: loss or gradient not finite),
    precision.lost_update_share.FORMAT (of weights whose first update is under half a unit in the
    last place, were they kept in that format), or precision.failure
`RateRangeQuestion`
    rate_range.key, rate_range.losses (a list of [learning rate, loss after an update at it], rising
    rates; a loss that was not finite is None), rate_range.diverging_rate (the first rate after
    which the loss was clearly over the first one or not finite; None where none was), or
    rate_range.failure
`NoiseScaleQuestion` (only where it is asked for)
    noise.key, noise.scale_examples (the simple gradient noise scale in examples), with
    noise.low_examples and noise.high_examples, a 90% bootstrap interval, noise.num_updates;
    noise.unidentified (a sentence) in their place where the updates do not tell it, or
    noise.failure

Facts that no question asks for, and that runs leave behind:

    noise.scale_examples and those beside it, without a key, and
    saving.checkpoint_s (seconds of one checkpoint), saving.checkpoint_bytes (its size)

that the caller finds out beforehand, since it costs next to nothing: disk.save_bytes_per_s (of the
run folder's disk: bytes of a checkpoint, written and verified, in a second)

and that a search leaves behind: tuned.key, tuned.because (a clause), and for each hyperparameter
that was searched tuned.NAME, with tuned.NAME.low and .high (between which the search could not tell
values apart)
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from trimtab.hyperparameters.config import Precision, TruncationMode
from trimtab.planning.settings import Settings


@dataclass(frozen=True, slots=True)
class DeviceQuestion:
    """What is the device, and how fast is it in each number format?"""

    device: str


@dataclass(frozen=True, slots=True)
class ModelQuestion:
    """How large is the model, and what can it do?"""


@dataclass(frozen=True, slots=True)
class DataQuestion:
    """How many rows, in which format, how long?"""


@dataclass(frozen=True, slots=True)
class TrainingRowsQuestion:
    """What is left to train on under these lengths and this split?

    `eval_dataset` is a path, or "" where `num_eval_rows` are held out of the training rows.
    """

    max_length: int
    truncation_mode: TruncationMode
    packing: bool
    num_eval_rows: int
    eval_dataset: str
    data_seed: int

    @property
    def key(self) -> str:
        """The arguments as one text, equal exactly where they are."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True)
class RunQuestion:
    """How large are the micro-batches of the run that these settings describe?"""

    settings: Settings

    @property
    def key(self) -> str:
        return _key(self.settings, _LAYOUT + _COURSE)


@dataclass(frozen=True, slots=True)
class Trial:
    """Two weight updates, each of `num_micro_batches` alike micro-batches of the longest rows.

    A row is a batch row: an example, or a packed row.
    """

    activation_checkpointing: Literal["off", "full"] | int
    num_rows: int
    num_micro_batches: int = 1


@dataclass(frozen=True, slots=True)
class TrialsQuestion:
    """How much memory and time do real weight updates take?"""

    settings: Settings
    trials: tuple[Trial, ...]

    @property
    def key(self) -> str:
        """The same for settings that compute alike; the trials themselves are not in it."""
        return _key(self.settings, _COMPUTATION + _LAYOUT)


@dataclass(frozen=True, slots=True)
class PrecisionQuestion:
    """What does each number format do to the seconds and to the gradient of an update?"""

    settings: Settings
    precisions: tuple[Precision, ...]

    @property
    def key(self) -> str:
        return _key(self.settings, _WEIGHTS + _LAYOUT)


@dataclass(frozen=True, slots=True)
class RateRangeQuestion:
    """At which learning rate does an update on the run's own rows begin to do harm?"""

    settings: Settings
    rates: tuple[float, ...]

    @property
    def key(self) -> str:
        return _key(self.settings, _COMPUTATION + _LAYOUT + ("global_batch_size",))


@dataclass(frozen=True, slots=True)
class NoiseScaleQuestion:
    """How noisy is a gradient before anything is learnt?

    Each of `num_updates` has `num_examples`, in micro-batches of `num_micro_batch_examples`.
    expected_s: the whole probe's seconds; None where the device was not timed.
    """

    settings: Settings
    num_updates: int
    num_examples: int
    num_micro_batch_examples: int
    expected_s: float | None

    @property
    def key(self) -> str:
        """The same for the same gradients; the number format and the layout are not in it."""
        return _key(self.settings, _GRADIENT + _ROWS)


def tuned_key(settings: Settings) -> str:
    """The same for settings under which what a search found holds.

    What the best rate is known to move with; the run's length is not in it.
    """
    return _key(settings, _GRADIENT + _TUNED)


_GRADIENT = ("model", "method", "lora_r", "lora_alpha", "lora_dropout", "target_modules")
_WEIGHTS = (*_GRADIENT, "device", "optim", "adam_beta1", "adam_beta2", "adam_epsilon")
_COMPUTATION = (*_WEIGHTS, "precision", "weight_decay", "max_grad_norm")
_TUNED = (
    *("optim", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm"),
    *("global_batch_size", "packing", "lr_scheduler_type"),
)
_ROWS = ("max_length", "truncation_mode", "num_eval_rows", "eval_dataset", "data_seed")
_LAYOUT = (*_ROWS, "packing", "padding", "padding_side", "pad_to_multiple_of")
_COURSE = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_ranks",
    "num_train_steps",
)


def _key(settings: Settings, names: tuple[str, ...]) -> str:
    values = asdict(settings)
    return json.dumps({name: values[name] for name in names}, sort_keys=True)


Question = (
    DeviceQuestion
    | ModelQuestion
    | DataQuestion
    | TrainingRowsQuestion
    | RunQuestion
    | TrialsQuestion
    | PrecisionQuestion
    | RateRangeQuestion
    | NoiseScaleQuestion
)
