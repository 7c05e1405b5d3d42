from __future__ import annotations

import pytest

from trimtab.planning.module_names import folded, is_named, unfolded


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"layers.{n}.up" for n in range(12)], ["layers.0-11.up"]),
        (
            [f"layers.{n}.experts.{m}.up" for n in (0, 1, 2) for m in range(4)],
            ["layers.0-2.experts.0-3.up"],
        ),
        (
            [f"layers.{n}.up" for n in (0, 1, 2, 5, 7, 8)],
            ["layers.0-2.up", "layers.5.up", "layers.7-8.up"],
        ),
        (["layers.0.up", "layers.0.down", "layers.1.up"], ["layers.0-1.up", "layers.0.down"]),
        (["mlp.0", "mlp.1", "head"], ["mlp.0", "mlp.1", "head"]),
        ([], []),
    ],
)
def test_names_that_differ_in_a_number_are_told_as_one(
    names: list[str], expected: list[str]
) -> None:
    assert folded(names) == expected
    again = [name for one in expected for name in unfolded(one)]
    assert sorted(again) == sorted(names)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("q_proj", True),
        ("self_attn.q_proj", True),
        ("11.self_attn.q_proj", True),
        ("1.self_attn.q_proj", False),
        ("layers.11.self_attn.q_proj", True),
        ("layers.1.self_attn.q_proj", False),
        ("foo.q_proj", False),
        ("proj", False),
    ],
)
def test_a_target_means_whole_parts_of_a_names_end(target: str, expected: bool) -> None:
    assert is_named("layers.11.self_attn.q_proj", target) is expected
