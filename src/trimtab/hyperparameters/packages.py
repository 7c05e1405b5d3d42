"""Packages that a value needs beside trimtab's own, looked for without loading them."""

from __future__ import annotations

from importlib.util import find_spec

from trimtab.errors import ConfigError

OPTIMIZER_PACKAGES = {
    "adamw_8bit": "bitsandbytes",
    "lion": "pytorch-optimizer",
    "adamw_schedule_free": "pytorch-optimizer",
}


def check_optimizer_package(optim: str) -> None:
    """Raises ConfigError where the optimizer's package is not installed."""
    package = OPTIMIZER_PACKAGES.get(optim)
    if package is None or find_spec(package.replace("-", "_")) is not None:
        return
    raise ConfigError(
        f"optim: {optim} needs the package {package}, which is not installed.",
        hint=f"Install it with: pip install 'trimtab[{package}]', or take optim: adamw.",
    )
