"""A disk that fails, as libraries written in Rust tell of it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def raised_as_os_error(path: Path | None = None) -> Iterator[None]:
    """Raise OSError, of `path`, for what safetensors and tokenizers put in a text.

    `I/O error: … (os error 28)`; tokenizers raises it as a plain Exception.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None and not isinstance(error, SafetensorError):
            raise
        code = errno.EIO if number is None else int(number[1])
        told = str(error) if number is None else os.strerror(code)
        raise OSError(code, told, None if path is None else str(path)) from error
