"""Settings that were made and change nothing in this plan."""

from __future__ import annotations

from trimtab.hyperparameters.layers import ResolvedConfig

_PADDED_ONLY = ("padding_side", "pad_to_multiple_of")


def unused_layout(resolved: ResolvedConfig, *, packing: bool, padding: str) -> tuple[str, ...]:
    """Padding's settings where nothing is padded, each as a sentence."""
    if not packing and padding != "none":
        return ()
    return tuple(
        f"{name} has no effect: no pad token is computed under padding: none."
        for name in _PADDED_ONLY
        if resolved.is_set(name)
    )
