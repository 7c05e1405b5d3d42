"""Ray, on this machine or a cluster: found late, and asked only where the user names it."""

from __future__ import annotations

import logging
import os
from typing import Any

from trimtab.errors import ConfigError

ADDRESS = "RAY_ADDRESS"
"""Where Ray's own commands, and the jobs that it starts, are told of their cluster."""
AUTH_MODE = "RAY_AUTH_MODE"
"""Ray 2.60 asks for a token by itself where it finds one, but gives one to no address unasked."""


def connected_ray(on: str) -> Any:
    """The module, connected: `ray`, or `ray:ADDRESS` of a cluster.

    Where no cluster is named, by RAY_ADDRESS either, Ray is started on this machine for as long as
    this process lives, without its dashboard; it reports its usage to nobody, unless asked to.
    Raises ConfigError for anything else, and where Ray is not installed or does not answer.
    """
    kind, _, address = on.partition(":")
    if kind != "ray":
        raise ConfigError(
            f"runs cannot be made on {on}.",
            hint="Say local, ray, or ray: and the address of a cluster.",
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "Ray is not installed.", hint="Install it: pip install 'trimtab[ray]'."
        ) from error
    address = address or os.environ.get(ADDRESS, "")
    if not ray.is_initialized():
        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # where it does not start in time Ray has no error of its own
            raise ConfigError(
                f"Ray does not answer: {str(error).rstrip('.')}.",
                where=address or None,
                hint=_hint_at(address),
            ) from error
    return ray


def _hint_at(address: str) -> str:
    if not address:
        return "Is the machine too busy to start it?"
    if AUTH_MODE in os.environ:
        return "Is it running?"
    return f"Is it running? One that asks for a token wants {AUTH_MODE}=token set here too."
