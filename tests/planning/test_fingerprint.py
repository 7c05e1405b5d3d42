from __future__ import annotations

from trimtab.planning.fingerprint import changed_parts, digest


def test_digests_are_of_values_and_not_of_their_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})


def test_changed_parts_are_named_in_one_order() -> None:
    earlier = {"libraries": "1", "model": "1", "data": "1"}
    assert changed_parts(earlier, dict(earlier)) == ()
    assert changed_parts(earlier, {"libraries": "2", "model": "1", "data": "2"}) == (
        "data",
        "libraries",
    )
    assert changed_parts(earlier, {"libraries": "1", "model": "1"}) == ("data",)
