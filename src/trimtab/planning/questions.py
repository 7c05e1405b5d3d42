"""What the planner still needs to know; the caller measures and asks again.

Each question is answered by facts of the ids listed under it. Percentiles are of the untruncated
row lengths in tokens; a row is one example.

`DeviceQuestion`
    device.kind (`cpu` | `cuda`), device.name, device.num_threads, device.memory_bytes,
    device.memory_available_bytes, device.matmul_flops_per_s.fp32 / .bf16 / .fp16 (absent where the
    device does not run the format), device.native.bf16 / .fp16 (bool: not emulated)
`ModelQuestion`
    model.architecture, model.num_parameters, model.num_embedding_parameters,
    model.head_is_tied (bool: the output head shares the embedding's weights), model.num_layers,
    model.hidden_size, model.vocab_size, model.max_position_embeddings,
    model.linear_modules (list of [name suffix, in_features, out_features, count]),
    model.packing_refusal (text, None where packed attention is had),
    model.pad_token (the token that `pad_token` resolves to), model.pad_token_id,
    model.pad_token_because, model.chat_template (bool)
`DataQuestion`
    data.num_rows, data.num_bad_rows, data.num_duplicate_rows, data.format, data.format_because,
    data.num_tokens, data.num_trainable_tokens, data.length_mean, data.length_max,
    data.length_quantiles (201 lengths: 0, 0.5, … 100%), data.templated (bool),
    data.template_because, data.eval_num_rows (only where eval_dataset is a path)
`TrainingRowsQuestion` (after hold-out, truncation and packing)
    rows.digest (of all tokens),
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
    rows.eval_num_truncated, rows.eval_num_dropped (held-out rows left without a target)
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from trimtab.hyperparameters.config import TruncationMode


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


Question = DeviceQuestion | ModelQuestion | DataQuestion | TrainingRowsQuestion
