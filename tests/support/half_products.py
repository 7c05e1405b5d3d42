"""fp16 matrix products that a CPU without fp16 units can do in reasonable time."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
}


class HalfProductsInFp32(TorchDispatchMode):
    """fp16 products accumulate in fp32 and are rounded to fp16, as tensor cores do it.

    A result above 65,504 is infinite as it is on any fp16 device.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in PRODUCTS and _is_half(args[-1]):
            result = func(*[each.float() if _is_half(each) else each for each in args], **kwargs)
            return result.half()
        return func(*args, **kwargs)


def _is_half(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.float16
