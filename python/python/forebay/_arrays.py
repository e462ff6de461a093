"""Arrays and tensors of any library, as bytes that the extension module can copy.

NumPy and PyTorch are used where they are installed, and are never imported otherwise.
"""

from __future__ import annotations

import math
import numbers
from typing import Any


def scalar(value: Any) -> float:
    """Returns the number that a scalar argument is.

    Raises:
        AssertionError: A tensor or an array of another number of elements than one.
        NotImplementedError: Neither a number nor a tensor.
        TypeError, ValueError: What ``float`` raises.
    """
    if isinstance(value, (numbers.Number, str, bytes)):
        return float(value)  # type: ignore[arg-type]
    shape = getattr(value, "shape", None)
    if shape is None:
        raise NotImplementedError(f"Got {type(value)}, but numpy array or torch tensor are expected.")
    size = math.prod(shape)
    if size != 1:
        dimensions = sum(1 for length in shape if length != 1)
        raise AssertionError(
            "Tensor should contain one element (0 dimensions).             "
            f"Was given size: {size} and {dimensions} dimensions."
        )
    # `item` moves one number from whatever device the tensor is on.
    return float(value.item() if hasattr(value, "item") else value)
