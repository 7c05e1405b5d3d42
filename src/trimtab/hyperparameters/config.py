"""Every hyperparameter, declared once, as the fields of `TrainingConfig`.

Names are Hugging Face's. A field that may be `auto` says in its declaration how it is then
decided. Units: learning rates and ratios are pure numbers, lengths are tokens, batch sizes are
examples (or packed rows when `packing` is on), durations are weight updates or epochs.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from trimtab.hyperparameters.declaration import (
    AUTO,
    LARGEST_INT,
    Auto,
    FreeText,
    Hyperparameter,
    SearchRange,
)
from trimtab.hyperparameters.paths import usable_path
from trimtab.hyperparameters.units import SIZE_PATTERN, parse_bytes

Method = Literal["lora", "full"]
DatasetFormat = Literal["text", "prompt_completion", "messages", "alpaca", "sharegpt"]
TruncationMode = Literal["keep_start", "drop", "split", "error"]
Padding = Literal["none", "longest", "max_length"]
PaddingSide = Literal["left", "right"]
Precision = Literal["bf16", "fp16", "fp32"]
Parallelism = Literal["replicate", "shard"]
LossSpikeAnswer = Literal["stop", "skip", "rewind"]
Optimizer = Literal[
    "adamw", "adam", "sgd", "adafactor", "muon", "adamw_8bit", "lion", "adamw_schedule_free"
]
Scheduler = Literal[
    "linear",
    "cosine",
    "constant",
    "constant_with_warmup",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
]
PositiveInt = Annotated[int, Field(gt=0, le=LARGEST_INT)]
NonNegativeInt = Annotated[int, Field(ge=0, le=LARGEST_INT)]
BatchSize = Annotated[int, Field(gt=0, le=2**20)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[Text, AfterValidator(usable_path)]
Names = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]


def _a_size(text: str) -> str:
    parse_bytes(text)
    return text


def _plain_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    for name, value in arguments.items():
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"{name} is not a number, a text or a switch")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is not finite")
    return arguments


SchedulerArguments = Annotated[
    dict[str, Any],
    AfterValidator(_plain_arguments),
    Field(json_schema_extra={"additionalProperties": {"type": ["boolean", "number", "string"]}}),
]
MemorySize = Annotated[
    str,
    AfterValidator(_a_size),
    Field(json_schema_extra={"pattern": SIZE_PATTERN}),
    FreeText("a size such as 6GiB"),
]


class TrainingConfig(BaseModel):
    """One fine-tuning run as the user asks for it; `auto` values are not decided yet.

    Frozen and strict: no unknown key, no NaN, no silent conversion (`"3"` is not 3).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    # Model ------------------------------------------------------------------------------------
    model: Annotated[
        PathText,
        FreeText("a folder, a hub name or a .gguf file"),
        Hyperparameter(
            "The model to fine-tune: a Hugging Face folder, a hub name or a GGUF file.",
            "model",
            example="models/SmolLM2-135M-Instruct",
            aliases=("model_name_or_path", "base_model"),
        ),
    ]
    method: Annotated[
        Method,
        Hyperparameter(
            "Train all weights (`full`) or low-rank adapters beside frozen weights (`lora`).",
            "model",
            example="full",
            evidence="LoRA is of Hu et al. (2021, arXiv 2106.09685). On all linear layers it "
            "matches full fine-tuning on small and medium datasets, and falls behind "
            "where the data outgrows its capacity (LoRA Without Regret, Thinking "
            "Machines, 2025).",
            aliases=("adapter", "finetuning_type"),
        ),
    ] = "lora"
    trust_remote_code: Annotated[
        bool,
        Hyperparameter(
            "Let the model's own Python code run. Off: such a model is refused.",
            "model",
            example="true",
        ),
    ] = False
    chat_template: Annotated[
        PathText,
        FreeText("auto, model, plain, none, or a Jinja file's path"),
        Hyperparameter(
            "The template that turns messages into text: the model's own, `plain` User/Assistant "
            "text, `none`, or a Jinja file's path.",
            "model",
            example="plain",
            auto="The model's own; a plain User/Assistant template where it has none and the rows "
            "are conversations.",
            evidence="A chat model knows turns by the marks that its own template puts between "
            "them. No sweep of templates is known.",
        ),
    ] = AUTO

    # Data -------------------------------------------------------------------------------------
    dataset: Annotated[
        PathText,
        FreeText("a file, a folder or a hub name"),
        Hyperparameter(
            "The training rows: a file (jsonl, json, csv, parquet, arrow, txt), a folder of them "
            "or a hub name.",
            "data",
            example="rows.jsonl",
            aliases=("dataset_name", "datasets", "train_file"),
        ),
    ]
    dataset_split: Annotated[
        Text,
        FreeText("the name of a split"),
        Hyperparameter(
            "The split that a hub dataset is read from.",
            "data",
            example="validation",
        ),
    ] = "train"
    dataset_format: Annotated[
        Auto | DatasetFormat,
        Hyperparameter(
            "The shape of a row.",
            "data",
            example="messages",
            auto="Detected from the columns, and said.",
            evidence="None is needed: the columns are looked at, nothing is weighed.",
        ),
    ] = AUTO
    dataset_columns: Annotated[
        dict[str, Text],
        FreeText("a mapping from parts to column names"),
        Hyperparameter(
            "Which columns hold which part, as `{prompt: question, completion: answer}`.",
            "data",
            example="{prompt: question, completion: answer}",
            aliases=("columns",),
        ),
    ] = Field(default_factory=dict)
    dataset_text_field: Annotated[
        Text,
        FreeText("a column's name"),
        Hyperparameter(
            "The column that holds the text of `text` rows.",
            "data",
            example="body",
        ),
    ] = "text"
    eval_dataset: Annotated[
        Auto | Literal["none"] | Fraction | Annotated[PathText, FreeText("a path or hub name")],
        Hyperparameter(
            "The held-out rows: a path or hub name (its validation split, else test), a fraction "
            "of the training rows, or `none`.",
            "data",
            example="0.1",
            auto="A seeded 5% of the rows, at least 16 and at most 512; none where that would "
            "leave fewer rows to train on than are held out.",
            raising="A surer held-out loss; fewer rows to train on.",
            lowering="More rows to train on; a noisier held-out loss.",
            evidence="Search over hyperparameters overfits the rows that it scores on (2021, arXiv "
            "2106.09204): keep rows for a last test apart.",
            aliases=("val_set_size", "val_size"),
        ),
    ] = AUTO
    completion_only_loss: Annotated[
        bool,
        Hyperparameter(
            "Prompt and completion rows: train on the completion alone.",
            "data",
            example="false",
            evidence="Training on the prompt as well has helped where rows are few and completions "
            "short (Instruction Tuning With Loss Over Instructions, 2024, arXiv "
            "2405.14394): a thing to test, not the default.",
        ),
    ] = True
    assistant_only_loss: Annotated[
        bool,
        Hyperparameter(
            "Conversations: train on the assistant's turns alone, end-of-turn token included.",
            "data",
            example="false",
        ),
    ] = True
    on_bad_row: Annotated[
        Literal["stop", "skip"],
        Hyperparameter(
            "Stop at rows that cannot be read, or skip and count them.",
            "data",
            example="skip",
        ),
    ] = "stop"

    # Length and padding -----------------------------------------------------------------------
    max_length: Annotated[
        Auto | PositiveInt,
        Hyperparameter(
            "The longest row that is trained on whole.",
            "length and padding",
            unit="tokens",
            example="512",
            auto="The longest row where that is near the 99.5th percentile of the lengths, "
            "else that percentile, rounded up to 64; never over the model's "
            "positions. Lengths are of this model's own tokens, the template "
            "included, and the plan counts the rows and tokens that would be cut.",
            raising="Keeps more of long rows; memory grows with it.",
            lowering="Saves memory and time; long rows lose their end, often the answer.",
            guide="Bring the examples to one length, by padding. Here a length is an upper "
            "bound, and no row has to be filled up to it.",
            guide_row=3,
            evidence="Rows that are cut in silence lose their answers (LLaMA-Factory issue "
            "3995, Unsloth issue 2904), so nothing is cut uncounted and one very long "
            "row sets nothing.",
            aliases=("max_seq_length", "sequence_len", "cutoff_len", "max_seq_len"),
        ),
    ] = AUTO
    truncation_mode: Annotated[
        TruncationMode,
        Hyperparameter(
            "A row longer than `max_length`: cut its end, drop it, split it, or stop.",
            "length and padding",
            example="drop",
        ),
    ] = "keep_start"
    packing: Annotated[
        bool,
        Hyperparameter(
            "Fill rows of `max_length` tokens with whole examples (best-fit decreasing), each "
            "attending to itself alone.",
            "length and padding",
            example="true",
            guide="Padding is what the guide knows; packed rows need none.",
            guide_row=3,
            evidence="Whole examples in best-fit order cut far fewer texts than joining and "
            "slicing, at the same speed (Fewer Truncations Improve Language Modeling, "
            "2024, arXiv 2404.10830).",
            aliases=("sample_packing",),
        ),
    ] = False
    padding: Annotated[
        Padding,
        Hyperparameter(
            "`none` joins examples end to end and computes no pad token; `longest` pads to the "
            "longest of the micro-batch; `max_length` pads to that.",
            "length and padding",
            example="longest",
            guide="Pad each example to one fixed length. That computes tokens that nothing "
            "is learned from, so `none` is the default here.",
            guide_row=3,
            evidence="The loss at real positions is the same under all three, so this is a choice "
            "of speed.",
        ),
    ] = "none"
    padding_side: Annotated[
        PaddingSide,
        Hyperparameter(
            "The side that pad tokens stand on. Training results are the same; left is for "
            "generation.",
            "length and padding",
            example="left",
            guide="Pad on the left. Only generation needs that.",
            guide_row=3,
        ),
    ] = "right"
    pad_token: Annotated[
        Text,
        FreeText("auto, unk, eos, or a token of the vocabulary"),
        Hyperparameter(
            "The token that fills padded positions: `auto`, `unk`, `eos`, or a token of the "
            "vocabulary.",
            "length and padding",
            example="unk",
            auto="The model's own pad token where it does not end a turn, else an unused token "
            "that the vocabulary reserves, else unk, else eos. No token is ever added.",
            guide="Take the unknown token as pad token. Here it is the second choice, after "
            "a token that the vocabulary keeps free.",
            guide_row=3,
            evidence="Where the end-of-sequence token pads and masks are made from token ids, "
            "a model does not learn to stop (trl issue 1623, torchtune issue 949). "
            "Masks are made from positions here.",
        ),
    ] = AUTO
    pad_to_multiple_of: Annotated[
        PositiveInt | None,
        Hyperparameter(
            "Round the padded length up to a multiple of this.",
            "length and padding",
            unit="tokens",
            example="64",
            raising="Fewer distinct shapes; more pad tokens.",
            lowering="Fewer pad tokens; more distinct shapes.",
        ),
    ] = None

    # Batch ------------------------------------------------------------------------------------
    per_device_train_batch_size: Annotated[
        Auto | BatchSize,
        Hyperparameter(
            "The micro-batch: examples that one device computes at once.",
            "batch",
            unit="examples",
            example="8",
            auto="A few sizes are measured by real updates on the run's own longest "
            "rows, which fixes memory and seconds for all of them. Of the sizes "
            "8·k, 4, 2 and 1 that divide the global batch and keep the worst case "
            "under memory_limit, the smallest within 3% of the most tokens a second "
            "is taken: past that, rows cost memory and gain nothing. Where nothing "
            "was measured, the largest that fits by arithmetic.",
            raising="Fewer, larger kernels: faster until the device is full; more memory. "
            "Results stay the same when the global batch does.",
            lowering="Less memory; slower where kernels become too small.",
            guide="The larger the batch, the faster the training and the less it clings to "
            "one example: raise it until the memory is full, in sizes that the device "
            "is tuned for and not in odd ones. That larger is faster "
            "holds up to some size only, and results are a matter of the global "
            "batch, so speed is measured here.",
            guide_row=1,
            evidence="In half precision NVIDIA asks for matrix dimensions that are multiples "
            "of 8 (Matrix Multiplication Background User's Guide); with joined rows "
            "that dimension is tokens, not examples. What is left is a matter of the "
            "device, and is timed.",
            aliases=("micro_batch_size", "batch_size", "train_batch_size"),
        ),
    ] = AUTO
    per_device_eval_batch_size: Annotated[
        Auto | BatchSize,
        Hyperparameter(
            "Examples that one device evaluates at once; the loss does not depend on it.",
            "batch",
            unit="examples",
            example="16",
            auto="The training micro-batch.",
            raising="Faster evaluation; more memory.",
            lowering="Less memory; slower evaluation.",
            evidence="The loss is summed over tokens and divided once, so it does not depend "
            "on this; a mean of batch means does (transformers issue 39241).",
            aliases=("eval_batch_size",),
        ),
    ] = AUTO
    gradient_accumulation_steps: Annotated[
        Auto | BatchSize,
        Hyperparameter(
            "Micro-batches whose gradients are summed into one weight update.",
            "batch",
            unit="micro-batches",
            example="4",
            auto="The global batch divided by the micro-batch.",
            raising="A larger global batch in the same memory; each update takes longer.",
            lowering="Shorter updates over a smaller global batch.",
            guide="Where the batch that you want is larger than the device can hold, add up "
            "the gradients of several smaller ones.",
            guide_row=4,
            evidence="Gradients are divided by the trainable tokens of the whole batch, so k "
            "micro-batches give the update of the batch that they make up; a mean of "
            "means does not where lengths differ (transformers issue 34191).",
        ),
    ] = AUTO
    global_batch_size: Annotated[
        Auto | BatchSize,
        Hyperparameter(
            "Examples in one weight update, over all micro-batches and devices.",
            "batch",
            unit="examples",
            example="32",
            auto="16, lowered by halves where the run would have fewer than 150 updates, "
            "never under 4. A gradient noise scale that an earlier run on this "
            "model and these rows left, or that `trimtab plan --noise-scale` probed "
            "before training, moves it towards the near end of its 90% interval: to "
            "half of that size at the least and four times it at the most, and never "
            "to fewer than 150 updates.",
            raising="Less noise in a gradient, fewer updates an epoch.",
            lowering="More updates an epoch, each noisier.",
            guide="Larger is better, as far as the memory goes. Memory is no bound on this "
            "one, since gradients are added up, and larger is not always better.",
            guide_row=1,
            evidence="Larger is better is contested. An Empirical Model of Large-Batch "
            "Training (2018, arXiv 1812.06162) gives a critical size by the "
            "gradient's noise scale, which arXiv 2505.23971 questions: a hint, no "
            "optimum.",
            search=SearchRange(4, 256),
        ),
    ] = AUTO

    parallelism: Annotated[
        Auto | Parallelism,
        Hyperparameter(
            "What each of several processes holds: the whole model, or a shard of every weight.",
            "batch",
            example="shard",
            auto="`replicate` where the smallest micro-batch of a whole model fits each "
            "process's memory with every layer recomputed, else `shard` (FSDP2). By "
            "arithmetic: what exchanges take is not timed.",
            evidence="Replicas exchange gradients once in an update. Shards exchange weights in "
            "every layer, twice in each micro-batch, and hold 1/N of weights, gradients and "
            "optimizer state (PyTorch FSDP, 2023, arXiv 2304.11277). Results are the same up "
            "to rounding.",
        ),
    ] = AUTO

    # Duration ---------------------------------------------------------------------------------
    num_train_epochs: Annotated[
        Auto | PositiveFloat,
        Hyperparameter(
            "How many times every example is seen.",
            "duration",
            unit="epochs",
            example="2",
            auto="3, as Hugging Face's default; unset where max_steps is given. No "
            "evidence is known for another number on your rows: the held-out loss "
            "tells when passes stop to help, and the best weights are kept.",
            raising="More passes: lower training loss, sooner or later over-fitting.",
            lowering="Less time; may under-fit.",
            guide="An epoch is every example once. Set epochs or updates; where epochs are "
            "set, the number of updates is ignored.",
            guide_row=7,
            evidence="In pretraining, up to about 4 passes over the same data are worth nearly as "
            "much as new data (Scaling Data-Constrained Language Models, 2023, arXiv "
            "2305.16264).",
            aliases=("num_epochs", "epochs"),
        ),
    ] = AUTO
    max_steps: Annotated[
        Literal[-1] | PositiveInt,
        Hyperparameter(
            "How many weight updates the run has; -1 is unset.",
            "duration",
            unit="updates",
            example="100",
            raising="A longer run: lower training loss, sooner or later over-fitting.",
            lowering="Less time; may under-fit.",
            guide="A step is one update of the weights. It is ignored where epochs are set.",
            guide_row=7,
            evidence="Where one file sets it beside num_train_epochs, the epochs win; Hugging "
            "Face's trainer has it the other way round. Across layers the later one wins.",
        ),
    ] = -1

    # Learning rate ----------------------------------------------------------------------------
    learning_rate: Annotated[
        Auto | PositiveFloat,
        Hyperparameter(
            "The size of a step at the top of the schedule.",
            "learning rate",
            example="2e-4",
            auto="A prior from a published sweep over 35 models (LoRA: 1e-3 below 4B "
            "weights, else 3e-4; full: a tenth), times √(examples an update ÷ 128). "
            "A range test on the run's own rows caps it at a third of the first "
            "rate at which an update did harm; the test lowers a rate and never "
            "raises one. The rate that a finished search found for this model, data "
            "and method beats both.",
            raising="Learns faster, then diverges.",
            lowering="Safer and slower; may not arrive.",
            guide="It is the size of a step: too high and training never settles, too low "
            "and it is slow.",
            guide_row=8,
            evidence="Over that sweep (Tinker cookbook) a rate of 3e-4 for every model costs 0.30% "
            "mean loss against each model's best, so a factor of 3 either way is rarely worth a "
            "search. Square-root scaling: arXiv 2205.10287. A range test bounds divergence and is "
            "no optimum: short runs without annealing favour rates that are far too small (2018, "
            "arXiv 1803.02021).",
            aliases=("lr",),
            search=SearchRange(1e-6, 1e-2),
        ),
    ] = AUTO
    lr_scheduler_type: Annotated[
        Scheduler,
        Hyperparameter(
            "How the learning rate moves after warmup.",
            "learning rate",
            example="cosine",
            guide="Linear, cosine or constant; linear suits most.",
            guide_row=9,
            evidence="Linear to zero beats cosine to 10% by 0.77% at 610M weights in pretraining "
            "(2025, arXiv 2502.15938); the gap is smaller in short tuning. A constant "
            "rate with a cooldown lets runs of several lengths share their trunk (2024, "
            "arXiv 2405.18392).",
            aliases=("lr_scheduler",),
        ),
    ] = "linear"
    lr_scheduler_kwargs: Annotated[
        SchedulerArguments,
        FreeText("a mapping from argument names to finite numbers, texts or switches"),
        Hyperparameter(
            "Further arguments of the schedule, as transformers names them (`num_cycles`, "
            "`min_lr`, `power`, `num_decay_steps`…).",
            "learning rate",
            example="{min_lr: 1e-5}",
        ),
    ] = Field(default_factory=dict)
    warmup_steps: Annotated[
        Auto | NonNegativeInt | Fraction,
        Hyperparameter(
            "Updates over which the rate rises from 0; a fraction below 1 is a share of the run.",
            "learning rate",
            unit="updates, or a share of them",
            example="20",
            auto="3% of the updates, at least 10, never over 10%.",
            raising="A gentler start; less of the run at the full rate.",
            lowering="More of the run at the full rate; the first updates rest on few gradients.",
            guide="Start from a low rate, over a fixed number of updates or a share of "
            "them: 10% of 10,000 updates are 1,000.",
            guide_row=10,
            evidence="A gradual start lets large batches train as stably as small ones (Goyal et "
            "al., 2017, arXiv 1706.02677).",
        ),
    ] = AUTO
    warmup_ratio: Annotated[
        Annotated[float, Field(ge=0, lt=1)] | None,
        Hyperparameter(
            "The share of the updates over which the rate rises from 0.",
            "learning rate",
            unit="share of the updates",
            example="0.1",
            raising="A gentler start; less of the run at the full rate.",
            lowering="More of the run at the full rate; the first updates rest on few gradients.",
            guide="As for warmup_steps: 10% of 10,000 updates are 1,000.",
            guide_row=10,
            evidence="As for warmup_steps. Both in one layer is an error; across layers the later "
            "one wins.",
            search=SearchRange(0.01, 0.3),
        ),
    ] = None

    # Regularisation and optimizer -------------------------------------------------------------
    optim: Annotated[
        Optimizer,
        Hyperparameter(
            "The rule that turns gradients into weight updates.",
            "regularisation and optimizer",
            example="adafactor",
            guide="AdamW, which takes the decay of the weights out of the gradient's update.",
            guide_row=12,
            evidence="AdamW takes weight decay out of the gradient (2017, arXiv 1711.05101). Less "
            "memory: Adafactor (2018, arXiv 1804.04235), 8-bit states (2021, arXiv "
            "2110.02861), Lion (2023, arXiv 2302.06675). No schedule: schedule-free "
            "(2024, arXiv 2405.15682).",
            aliases=("optimizer",),
        ),
    ] = "adamw"
    weight_decay: Annotated[
        NonNegativeFloat,
        Hyperparameter(
            "How strongly weights are pulled to zero: decoupled, or the L2 term under `adam` and "
            "`sgd`. Biases, norms and embeddings are exempt.",
            "regularisation and optimizer",
            example="0.01",
            raising="Relies less on any one feature; too much under-fits.",
            lowering="0 is Hugging Face's default for fine-tuning.",
            guide="The sum of squared weights joins the loss, so that the model relies less "
            "on any one feature; usually 0 in Hugging Face.",
            guide_row=11,
            evidence="Decoupled from the gradient, its best value no longer moves with the "
            "learning rate (Decoupled Weight Decay Regularization, 2017, arXiv "
            "1711.05101).",
            search=SearchRange(1e-3, 1.0),
        ),
    ] = 0.0
    adam_beta1: Annotated[
        Beta,
        Hyperparameter(
            "The decay of the mean of gradients.",
            "regularisation and optimizer",
            example="0.95",
            raising="A longer memory: smoother steps, slower to turn.",
            lowering="A shorter memory: quicker to turn, noisier.",
        ),
    ] = 0.9
    adam_beta2: Annotated[
        Beta,
        Hyperparameter(
            "The decay of the mean of squared gradients.",
            "regularisation and optimizer",
            example="0.99",
            raising="A steadier scale of the steps; more updates until it is known.",
            lowering="Follows changes in the gradients' size sooner, noisily.",
            evidence="Rules that keep the half-life in tokens (2025, arXiv 2507.07101) ask for "
            "more memory than a short run has updates, so the default stays.",
        ),
    ] = 0.999
    adam_epsilon: Annotated[
        PositiveFloat,
        Hyperparameter(
            "The constant that keeps Adam's denominator from zero.",
            "regularisation and optimizer",
            example="1e-6",
            raising="Smaller steps for weights with tiny gradients.",
            lowering="Full steps even for weights with tiny gradients.",
        ),
    ] = 1e-8
    max_grad_norm: Annotated[
        NonNegativeFloat,
        Hyperparameter(
            "The norm that a larger gradient is scaled down to; 0 switches clipping off.",
            "regularisation and optimizer",
            example="0.5",
            raising="Lets larger gradients through; rare bad batches do more harm.",
            lowering="Scales down more updates, as a lower learning rate would.",
            evidence="Clipping by the norm is of Pascanu et al. (2012, arXiv 1211.5063).",
        ),
    ] = 1.0
    on_loss_spike: Annotated[
        LossSpikeAnswer,
        Hyperparameter(
            "What to do about a batch whose loss jumps, before it reaches the weights: `stop`; "
            "`skip` its rows; or `rewind` to the last checkpoint and go on behind them.",
            "regularisation and optimizer",
            example="skip",
            evidence="Going back about 100 updates and leaving out the batches around the spike "
            "was enough for PaLM, and the same batches did no harm from another checkpoint (2022, "
            "arXiv 2204.02311). A rate that is too large spikes again: after three returns the run "
            "stops.",
        ),
    ] = "stop"

    # Precision and memory ---------------------------------------------------------------------
    precision: Annotated[
        Auto | Precision,
        Hyperparameter(
            "The number format of the matrix products; master weights stay fp32.",
            "precision and memory",
            example="fp32",
            auto="Updates on the run's own rows are measured in each format that the "
            "device computes itself, against fp32: seconds, the cosine between the "
            "gradients, overflow. bf16 where it is no slower, does not overflow and "
            "its gradient has a cosine of 0.95 at the least; on CUDA without it "
            "fp16, with a loss scaler; else fp32. Where no update was measured, "
            "timed matrix products decide. A device is asked, never looked up by "
            "its name.",
            guide="bfloat16 on GPUs of the Ampere generation or newer, else float16; where "
            "that overflows, seen as a loss of 0 or NaN, float32.",
            guide_row=13,
            evidence="fp16 needs its loss scaled against underflow (Mixed Precision Training, "
            "2017, arXiv 1710.03740); bf16 has fp32's range and needs no scaling (2019, "
            "arXiv 1905.12322).",
        ),
    ] = AUTO
    activation_checkpointing: Annotated[
        Auto | Literal["off", "full"] | PositiveInt,
        Hyperparameter(
            "Recompute activations in the backward pass: in no layer, in every one, or in every "
            "k-th.",
            "precision and memory",
            unit="layers",
            example="full",
            auto="The least that fits memory_limit, of off, every second layer and full, "
            "by the peak memory of real updates; more only where the larger "
            "micro-batch that it makes room for is over 3% faster. The price in "
            "time is told. Where nothing was measured, by arithmetic.",
            raising="A larger k recomputes fewer layers: less time, more memory.",
            lowering="A smaller k recomputes more layers: more time, less memory.",
            guide="Recomputing activations in the backward pass saves about 40% of the "
            "memory, more as batches grow. The share is a matter of the model's shape "
            "and the rows, so the plan measures yours.",
            guide_row=5,
            evidence="Chen et al. (2016, arXiv 1604.06174). What it saves depends on the model's "
            "shape and the rows' length, so the plan gives the figure for this run.",
            aliases=("gradient_checkpointing",),
        ),
    ] = AUTO
    device: Annotated[
        Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")],
        FreeText("auto, cpu, cuda or cuda:N"),
        Hyperparameter(
            "Where to train: `auto`, `cpu`, `cuda` or `cuda:N`.",
            "precision and memory",
            example="cpu",
            auto="CUDA where there is a device, else the CPU.",
            evidence="None is needed: the machine is asked what it has, and a device is never "
            "invented.",
        ),
    ] = AUTO
    memory_limit: Annotated[
        Auto | PositiveInt | MemorySize,
        Hyperparameter(
            "The memory that the run may take of a device, shared by its ranks there, as bytes or "
            "with a unit (`6GiB`).",
            "precision and memory",
            unit="bytes",
            example="6GiB",
            auto="What the device has, less what is in use, less a tenth. It holds for "
            "the worst case, the longest rows in one micro-batch, whatever their "
            "order in the run; what `auto` chooses stays another 5% under it.",
            raising="Larger micro-batches; less room for others on the device.",
            lowering="Smaller micro-batches or recomputed activations, so slower.",
            evidence="The tenth is a margin of caution and not a measurement: what other "
            "programs will take meanwhile cannot be known.",
        ),
    ] = AUTO

    # LoRA -------------------------------------------------------------------------------------
    lora_r: Annotated[
        Auto | PositiveInt,
        Hyperparameter(
            "The rank of the adapters.",
            "LoRA",
            example="32",
            auto="16. No other rank is tried; the plan counts the adapters' weights beside "
            "the model's.",
            raising="More capacity and memory.",
            lowering="Fewer weights to train; may be too few for the data.",
            evidence="The best learning rate hardly moves with rank: found at a low rank and used "
            "at the highest, it costs 0.14% mean loss over a sweep of 35 models (Tinker "
            "cookbook).",
            aliases=("lora_rank", "r"),
            search=SearchRange(4, 256),
        ),
    ] = AUTO
    lora_alpha: Annotated[
        Auto | PositiveFloat,
        Hyperparameter(
            "The adapters' scale: the update is alpha ÷ rank times B·A.",
            "LoRA",
            example="16",
            auto="32, as in LoRA Without Regret, so that the best rate does not move with rank.",
            raising="Larger updates from the same adapter, as a higher learning rate would give.",
            lowering="Smaller updates from the same adapter.",
            evidence="Division by the square root of the rank has been proposed for high ranks "
            "(rsLoRA, 2023, arXiv 2312.03732).",
        ),
    ] = AUTO
    lora_dropout: Annotated[
        Annotated[float, Field(ge=0, lt=1)],
        Hyperparameter(
            "The share of adapter inputs that is zeroed at random.",
            "LoRA",
            example="0.05",
            raising="Relies less on any one input; learns more slowly.",
            lowering="0 leaves every input in, and makes updates repeatable over micro-batch "
            "sizes.",
        ),
    ] = 0.0
    target_modules: Annotated[
        Literal["all-linear"] | Names,
        Hyperparameter(
            "The modules that get an adapter: `all-linear`, or a list of names.",
            "LoRA",
            example="[q_proj, v_proj]",
            evidence="Adapters on attention alone are worse than on all linear layers, also at "
            "equal size (LoRA Without Regret, Thinking Machines, 2025; QLoRA, 2023, arXiv "
            "2305.14314).",
            aliases=("lora_target_modules", "lora_target"),
        ),
    ] = "all-linear"

    # Run --------------------------------------------------------------------------------------
    output_dir: Annotated[
        PathText,
        FreeText("auto, or a folder's path"),
        Hyperparameter(
            "The run folder itself. An existing run is never overwritten.",
            "run",
            example="runs/first",
            auto="runs/ and a name from model, method and time.",
            evidence="None is needed: a free name is taken.",
        ),
    ] = AUTO
    seed: Annotated[
        Seed,
        Hyperparameter(
            "Seeds adapters' initial values and dropout.",
            "run",
            example="7",
        ),
    ] = 42
    data_seed: Annotated[
        Auto | Seed,
        Hyperparameter(
            "Seeds the order of the rows and the held-out split.",
            "run",
            example="7",
            auto="The value of `seed`.",
            evidence="None is needed: one seed is as good as another, and is kept so that the "
            "run can be repeated.",
        ),
    ] = AUTO
    eval_strategy: Annotated[
        Literal["steps", "epoch", "no"],
        Hyperparameter(
            "When to measure the held-out loss: every `eval_steps`, after each epoch, or never. "
            "It is measured before the run and after it too, unless `no`.",
            "run",
            example="epoch",
            aliases=("evaluation_strategy",),
        ),
    ] = "steps"
    eval_steps: Annotated[
        Auto | PositiveInt | Fraction,
        Hyperparameter(
            "Updates between two evaluations; a fraction below 1 is a share of the run.",
            "run",
            unit="updates, or a share of them",
            example="50",
            auto="A tenth of the run where evaluating that often costs at most a tenth of its "
            "tokens, else as often as that allows.",
            raising="Less time spent on evaluation; the best weights are chosen from fewer points.",
            lowering="A finer curve and choice of weights; more time.",
            evidence="No study of the interval is known, and a tenth is a bound on cost alone. "
            "The best weights are chosen among these points, and choosing among many "
            "suits the held-out rows too well (2021, arXiv 2106.09204).",
        ),
    ] = AUTO
    save_steps: Annotated[
        Auto | PositiveInt | Fraction,
        Hyperparameter(
            "Updates between two checkpoints; a fraction below 1 is a share of the run.",
            "run",
            unit="updates, or a share of them",
            example="100",
            auto="So often that a crash costs at most a quarter of the run and ten minutes; "
            "less often where saving would then take over 2% of the run's time, by the "
            "measured speed of its disk or an earlier run's saves.",
            raising="Less time and disk; more work lost in a crash.",
            lowering="Less work lost in a crash; more time and disk.",
            evidence="Young (1974) puts the best interval at √(2 × seconds of a save × mean "
            "seconds between failures). How often your machine fails is not known "
            "here, so both bounds are on cost alone.",
        ),
    ] = AUTO
    save_total_limit: Annotated[
        PositiveInt,
        Hyperparameter(
            "Checkpoints kept beside the best one.",
            "run",
            unit="checkpoints",
            example="3",
            raising="More points to go back to; more disk.",
            lowering="Less disk.",
        ),
    ] = 2
    logging_steps: Annotated[
        PositiveInt,
        Hyperparameter(
            "Updates between two printed lines where there is no live terminal; metrics.jsonl "
            "always has every update.",
            "run",
            unit="updates",
            example="1",
            raising="Fewer lines.",
            lowering="More lines.",
        ),
    ] = 10
    report_to: Annotated[
        Literal["none", "trackio", "tensorboard", "wandb", "mlflow"],
        Hyperparameter(
            "The tracker that metrics go to as well; metrics.jsonl has them in any case.",
            "run",
            example="tensorboard",
        ),
    ] = "none"
    report_samples: Annotated[
        NonNegativeInt,
        Hyperparameter(
            "Held-out prompts that the base and the tuned model answer on the page.",
            "run",
            unit="prompts",
            example="5",
            raising="More answers to compare; a longer end of the run.",
            lowering="0 generates nothing.",
        ),
    ] = 3
    max_new_tokens: Annotated[
        PositiveInt,
        Hyperparameter(
            "The longest answer in the page's samples.",
            "run",
            unit="tokens",
            example="128",
            raising="Longer answers are shown whole; a longer end of the run.",
            lowering="Long answers are cut.",
        ),
    ] = 64
