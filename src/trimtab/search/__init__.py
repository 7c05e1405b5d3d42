"""Tune: which value is best, and how sure is that.

`LocalQuadraticSampler` works in anyone's Optuna study; it is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.search.sampler import LocalQuadraticSampler

__all__ = ["LocalQuadraticSampler"]


def __getattr__(name: str) -> Any:
    if name != "LocalQuadraticSampler":
        raise AttributeError(f"module 'trimtab.search' has no attribute {name!r}")
    from trimtab.search.sampler import LocalQuadraticSampler

    return LocalQuadraticSampler
