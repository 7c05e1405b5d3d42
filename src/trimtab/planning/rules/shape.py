"""What the facts say of the model's weights, as numbers that rules compute with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from trimtab.planning.fact import Facts
from trimtab.planning.module_names import is_named, unfolded


@dataclass(frozen=True, slots=True)
class LinearModules:
    """Linear modules of one shape whose names differ in numbers alone, such as `layers.0-29.up`.

    The output head is not among them.
    """

    name: str
    in_features: int
    out_features: int
    count: int

    @property
    def suffix(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def num_weights(self) -> int:
        return self.count * self.in_features * self.out_features

    @property
    def num_features(self) -> int:
        return self.count * (self.in_features + self.out_features)


def linear_modules(facts: Facts) -> tuple[LinearModules, ...]:
    rows = cast(list[list[Any]], facts.value("model.linear_modules"))
    return tuple(LinearModules(*row) for row in rows)


def targeted(
    modules: Iterable[LinearModules], target_modules: Literal["all-linear"] | Sequence[str]
) -> tuple[LinearModules, ...]:
    """The modules that get an adapter: those whose names end in a target."""
    if target_modules == "all-linear":
        return tuple(modules)
    counted = (replace(module, count=_num_named(module, target_modules)) for module in modules)
    return tuple(module for module in counted if module.count)


def _num_named(module: LinearModules, targets: Sequence[str]) -> int:
    names = unfolded(module.name)
    named = [name for name in names if any(is_named(name, target) for target in targets)]
    return module.count * len(named) // len(names)


def num_adapter_weights(modules: Iterable[LinearModules], lora_r: int) -> int:
    """B·A beside every module: rank × (inputs + outputs)."""
    return lora_r * sum(module.num_features for module in modules)


def num_head_weights(facts: Facts) -> int:
    """The output head's, whether it is tied to the embedding or not."""
    return facts.integer("model.hidden_size") * facts.integer("model.vocab_size")


def num_layer_features(facts: Facts) -> float:
    """Inputs and outputs of a layer's linear modules, all together."""
    features = sum(module.num_features for module in linear_modules(facts))
    return features / facts.integer("model.num_layers")


def num_linear_weights(facts: Facts) -> int:
    return sum(module.num_weights for module in linear_modules(facts))
