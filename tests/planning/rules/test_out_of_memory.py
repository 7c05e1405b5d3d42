from __future__ import annotations

import re

from planning.facts import CPU, PLAIN_CPU, data, planned, quantiles

from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.rules.out_of_memory import SMALLER_MODEL, what_needs_less

LONG = data(length_max=2500, length_quantiles=quantiles(1024, 2500, 2490))


def told(num_tokens: int, **values: object) -> str:
    plan = planned(**values)
    size = MicroBatchSize(num_tokens, num_tokens / 2, num_tokens**2)
    return what_needs_less(plan.settings(), Facts().adding(plan.facts), size)


def test_each_way_is_told_with_its_memory_and_what_it_costs() -> None:
    text = told(2500, method="lora", precision="fp32", device=CPU, rows=LONG)
    assert re.search(r"max_length: 2048 \(\S+ GiB, cuts 18% of the rows\)", text)
    assert re.search(r"precision: bf16 \(\S+ GiB\)", text)
    assert "method" not in text
    assert "method: lora (" in told(300, method="full", precision="fp32", device=CPU)


def test_a_way_that_is_not_there_or_saves_next_to_nothing_is_not_offered() -> None:
    text = told(2500, method="lora", precision="fp32", device=PLAIN_CPU, rows=LONG)
    assert "max_length: 2048" in text
    assert "precision" not in text
    assert "max_length" not in told(300, method="full", precision="fp32", device=CPU)
    assert told(30, method="lora", precision="fp32", device=PLAIN_CPU) == SMALLER_MODEL
