"""What a shorter run keeps of a run, so that it speaks for it."""

from __future__ import annotations


def proxy_warmup_steps(run_warmup_steps: int, num_steps: int, *, num_decay_steps: int = 0) -> int:
    """Updates of warmup in a proxy of `num_steps` updates, the last `num_decay_steps` of decay.

    As many as the run has, not the same share: Adam's estimates of the gradients' scale settle with
    updates (2019, arXiv 1908.03265), so a proxy that comes to the full rate sooner speaks against
    rates that the run bears. Half of the proxy at the most, and no more than its decay leaves.
    """
    return min(run_warmup_steps, num_steps // 2, num_steps - num_decay_steps)
