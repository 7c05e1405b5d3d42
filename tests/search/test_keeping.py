from __future__ import annotations

from support.settings import tiny_settings

from trimtab.search.keeping import tuned_facts
from trimtab.search.record import Cost


def test_facts_have_ends_only_where_they_hold_the_value() -> None:
    values = {"learning_rate": 2e-4, "weight_decay": 0.1, "warmup_ratio": 0.1, "lora_r": 8}
    lines = {
        "learning_rate": (1e-4, 3e-4),
        "weight_decay": (0.1, 0.1),
        "warmup_ratio": None,
        "lora_r": (16.0, 64.0),
    }
    facts = tuned_facts(tiny_settings(), values, lines, "it was best", Cost(1, 1, 2.0, 0.1))
    known = {fact.id: fact.value for fact in facts}
    ends = {name for name in known if name.endswith((".low", ".high"))}
    assert ends == {"tuned.learning_rate.low", "tuned.learning_rate.high"}
    assert known["tuned.learning_rate.because"] == "it was best"
    assert sum(fact.cost_s for fact in facts) == 2.0
