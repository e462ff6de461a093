"""Arrays and tensors of any library, as bytes that the extension module can copy.

NumPy and PyTorch are used where they are installed, and are never imported otherwise.
"""

from __future__ import annotations

import importlib.util
import math
import numbers
import struct
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence, Sized
from itertools import islice, pairwise
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
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ma.MaskedArray) and numpy.ma.getmaskarray(value).all():
        # Its number is not to be seen, such as that of a mean of nothing.
        return math.nan
    if isinstance(value, memoryview):
        return _element(value)
    # `item` moves one number from whatever device the tensor is on.
    return float(value.item() if hasattr(value, "item") else value)


def number(value: Any) -> float | None:
    """Returns the number that a value with a shape and one element is, or ``None`` where it is none: a time, bytes, a complex number."""
    # `float` would take the nanoseconds of a time for a number, and leave out an imaginary part.
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if isinstance(value, bytes) or kind in ("c", "m", "M", "S"):
        return None
    try:
        return scalar(value)
    except (AssertionError, NotImplementedError, TypeError, ValueError):
        return None


def is_array(value: Any) -> bool:
    """Returns whether a value has data as arrays have it, here or on a device, beside its shape."""
    if any(hasattr(value, name) for name in ("__array__", "__dlpack__", "__cuda_array_interface__", "detach", "device")):
        return True
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


#: Data that the extension module copies, the type of its elements as NumPy writes it (``"<f4"``), and its shape.
Raw = tuple[Any, str, tuple[int, ...]]

#: The most numbers that are taken from an iterable without a length, which may have no end.
MAX_NUMBERS = 1 << 20

#: The kinds of elements of the buffer protocol.
_KINDS = {**dict.fromkeys("bhilqn", "i"), **dict.fromkeys("BHILQNc", "u"), **dict.fromkeys("efd", "f"), "?": "b"}


def raw(value: Any, lists: bool = False, what: str = "values") -> Raw:
    """Returns the elements of an array, in order, as bytes.

    Args:
        value: A tensor or an array of any library: what has the buffer protocol, ``__array__`` or ``__dlpack__``.
        lists: Whether lists of numbers are taken too.
        what: The argument that an error names.

    Raises:
        NotImplementedError: Something else.
        TypeError: The elements are no numbers, or the data is on a device.
    """
    found = _host(value, lists, what)
    if isinstance(found, memoryview):
        return _raw_view(found)
    import numpy as np

    shape = tuple(found.shape)
    if found.dtype.kind not in "biuf" or found.dtype.itemsize > 8:
        found = _plain(found)
    if not found.dtype.isnative:
        found = found.astype(found.dtype.newbyteorder("="))
    return np.ascontiguousarray(found).reshape(-1).view(np.uint8), found.dtype.str, shape


def native(value: Any, what: str, lists: bool) -> Raw:
    """Returns the elements of an array, as `raw` does; with ``lists``, also numbers in a list or another iterable.

    Raises:
        TypeError: Something else. ``what`` names it in the message.
        ValueError: An iterable without a length has more than `MAX_NUMBERS` numbers.
    """
    try:
        return raw(value, lists, what)
    except NotImplementedError as error:
        if not lists or isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
            rule = "a tensor, an array, or numbers in a list or another iterable" if lists else "a tensor or an array"
            raise TypeError(f"{what} must be {rule}, got {type(value).__name__}") from error
    if isinstance(value, Sized):
        return raw(list(value), lists, what)
    found = list(islice(value, MAX_NUMBERS + 1))
    if len(found) > MAX_NUMBERS:
        raise ValueError(f"{what} must be at most {MAX_NUMBERS} numbers where the iterable has no length, got more: make an array of them")
    return raw(found, lists, what)


def _plain(found: Any) -> Any:
    """Returns an array of numbers that have no type of their own in a file as one of numbers that do."""
    import numpy as np

    if found.dtype.kind in "cmM":
        raise TypeError(f"values must be real numbers, got {found.dtype}")
    # Types of two bytes and fewer that NumPy does not know, such as bfloat16.
    wanted = np.float32 if found.dtype.kind == "V" else np.float64
    return found.astype(wanted)


def _format(view: memoryview) -> tuple[str, str]:
    """Returns the order of the bytes of a buffer, and the kind of its elements."""
    order, kind = ("@", view.format) if len(view.format) == 1 else (view.format[0], view.format[1:])
    if kind not in _KINDS or order not in "@=<>!":
        raise TypeError(f"values must be real numbers, got a buffer of the format {view.format!r}")
    return order, kind


def _element(view: memoryview) -> float:
    """Returns the one element of a buffer."""
    order, kind = _format(view)
    # A byte, and no text.
    (element,) = struct.unpack(order + ("B" if kind == "c" else kind), view.tobytes())
    return float(element)


def _raw_view(view: memoryview) -> Raw:
    """Returns the elements of a buffer."""
    order, kind = _format(view)
    big = order in ">!" or (order in "=@" and sys.byteorder == "big")
    code = f"{'>' if big else '<'}{_KINDS[kind]}{view.itemsize}"
    is_plain = view.c_contiguous and view.nbytes and len(view.format) == 1
    return view.cast("B") if is_plain else view.tobytes(), code, tuple(view.shape or ())


def _host(value: Any, lists: bool, what: str = "values") -> Any:
    """Returns the data in the memory of the host: an array of NumPy, or a view of a buffer. ``what`` names lists in an error."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return value
    if isinstance(value, numbers.Number):
        return memoryview(array("d", [float(value)]))  # type: ignore[arg-type]
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return _host_of_torch(value)
    if isinstance(value, (list, tuple)):
        if not lists:
            raise NotImplementedError(f"Got {type(value)}, but numpy array or torch tensor are expected.")
        return _host_of_list(value, what)
    if hasattr(value, "__array__") and _has_numpy():
        import numpy as np

        try:
            # JAX copies to the host what is on a device; CuPy refuses it.
            return np.asarray(value)
        except TypeError as error:
            if not _is_elsewhere(value):
                raise
            raise _on_device(value) from error
    if _is_elsewhere(value):
        raise _on_device(value)
    if hasattr(value, "__dlpack__") and _has_numpy():
        import numpy as np

        return np.from_dlpack(value)
    try:
        return memoryview(value)
    except TypeError:
        pass
    if hasattr(value, "device"):
        raise _on_device(value)
    raise NotImplementedError(f"Got {type(value)}, but numpy array or torch tensor are expected.")


def _is_elsewhere(value: Any) -> bool:
    """Returns whether an array says that its data is on a device."""
    if hasattr(value, "__cuda_array_interface__"):
        return True
    if not hasattr(value, "__dlpack_device__"):
        return False
    # What DLPack calls the CPU, and memory of the host that a device reads as well: of CUDA and of ROCm.
    return int(value.__dlpack_device__()[0]) not in (1, 3, 11)


def _on_device(value: Any) -> TypeError:
    """Returns the error for data that is not in the memory of the host."""
    where = f" on {value.device}" if hasattr(value, "device") else " on a device"
    return TypeError(f"data must be in the memory of the host, got {type(value)}{where}: copy it to the host first")


def _host_of_torch(tensor: Any) -> Any:
    """Returns the data of a tensor of PyTorch. NumPy has no bfloat16, so that becomes float32."""
    tensor = tensor.detach()
    # The imaginary part of a conjugate has its sign in a bit of the tensor.
    if hasattr(tensor, "resolve_neg"):
        tensor = tensor.resolve_neg()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return tensor.cpu().numpy()


def _host_of_list(value: Sequence[Any], what: str) -> Any:
    """Returns the numbers of a list, or of nested lists."""
    if value and not any(map(_has_elements, value)):
        return memoryview(floats(value, what))
    _check_numbers(value, what, 1)
    if _has_numpy():
        import numpy as np

        return np.asarray(value, dtype=np.float64)
    shape: list[int] = []
    level: Any = value
    while isinstance(level, (list, tuple)):
        shape.append(len(level))
        level = level[0] if level else None
    flat: Any = value
    for _ in shape[1:]:
        # A number among lists is as wrong as a list that is shorter.
        flat = [each for row in flat for each in (row if isinstance(row, (list, tuple)) else ())]
    if math.prod(shape) != len(flat) or any(isinstance(each, (list, tuple)) for each in flat):
        raise ValueError(f"{what} must have the same number of elements in all lists of a level")
    view = memoryview(array("d", map(scalar, flat)))
    return view.cast("B").cast("d", shape) if len(flat) else view


def _has_elements(value: Any) -> bool:
    """Returns whether an element of a list is a list, or an array of another number of elements than one."""
    if type(value) is float or type(value) is int:
        return False
    return isinstance(value, (list, tuple)) or math.prod(getattr(value, "shape", ())) != 1


#: The types of what NumPy and `array` take as a number without a doubt.
_NUMBERS = {float, int, bool}

#: Most levels of nested lists: the dimensions of an array of NumPy.
_MAX_DEPTH = 64


def _check_numbers(value: Sequence[Any], what: str, depth: int) -> None:
    """Checks that nested lists have nothing but numbers and arrays: NumPy makes NaN of ``None``, and reads texts.

    Raises:
        TypeError: An element is something else. The message has its place.
        ValueError: There are more levels than NumPy has dimensions; a list that is within itself has no end of them.
    """
    if set(map(type, value)) <= _NUMBERS:
        return
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested lists must have at most {_MAX_DEPTH} levels, got more")
    for place, each in enumerate(value):
        name = f"{what}[{place}]"
        if isinstance(each, (list, tuple)):
            _check_numbers(each, name, depth + 1)
        elif not isinstance(each, numbers.Number) and not hasattr(each, "shape"):
            raise TypeError(f"{name} must be a number, got {type(each).__name__}")


def floats(values: Iterable[Any], what: str) -> array[float]:
    """Returns the numbers of a list of numbers, and of tensors and arrays of one element, of any library and on any device.

    Raises:
        TypeError: An element is something else. ``what`` names the list in the message.
    """
    found = values.tolist() if hasattr(values, "tolist") else list(values)
    if all(issubclass(kind, (float, int)) for kind in set(map(type, found))):
        return array("d", found)
    return array("d", [_number(value, what, place) for place, value in enumerate(found)])


def aligned(found: array[float]) -> Any:
    """Returns numbers as the extension module takes them: the buffer of an array without any has no address of numbers."""
    return found if found else memoryview(array("d", [0.0]))[:0]


def edges(values: Iterable[Any], what: str) -> array[float]:
    """Returns the edges of bins.

    Raises:
        TypeError: One of them is no number.
        ValueError: There are fewer than two, they do not grow, or they have more than one dimension.
    """
    shape = getattr(values, "shape", (0,))
    if len(shape) != 1:
        raise ValueError(f"`{what}` must be 1d, when an array, got the shape {tuple(shape)}")
    found = floats(values, what)
    if len(found) < 2:
        raise ValueError(f"`{what}` must have two edges or more, got {found.tolist()}")
    if any(later < earlier for earlier, later in pairwise(found)):
        raise ValueError(f"`{what}` must increase monotonically, when an array")
    return found


def number_of(value: Any, what: str) -> float:
    """Returns the number that an argument is: a number, or a tensor of one element, and no text."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{what} must be a number, got {value!r}")
    return float(value)


def _number(value: Any, what: str, place: int) -> float:
    """Returns the number that an element of a list is."""
    cause: Exception | None = None
    # `scalar` takes texts of numbers as well, as PyTorch's writer does.
    if not isinstance(value, (str, bytes)):
        try:
            return scalar(value)
        except NotImplementedError as error:
            cause = error
    raise TypeError(f"{what}[{place}] must be a number, got {type(value).__name__}") from cause


def _has_numpy() -> bool:
    """Returns whether NumPy is installed."""
    return "numpy" in sys.modules or importlib.util.find_spec("numpy") is not None


def rows(value: Any, what: str) -> list[list[float]]:
    """Returns the rows of a matrix."""
    found = _host(value, lists=True, what=what)
    if found.ndim != 2:
        raise ValueError(f"{what} must be a matrix, got {found.ndim} dimensions")
    matrix: list[list[float]] = found.tolist()
    return matrix


def boxes(value: Any) -> list[list[float]]:
    """Returns boxes, each with its four edges; what comes behind these, such as the score of a detector, is left out.

    Raises:
        ValueError: They have another shape.
    """
    shape = _host(value, lists=True, what="box_tensor").shape
    if len(shape) != 2 or shape[1] < 4:
        raise ValueError(f"box_tensor must have the shape (boxes, 4), got {tuple(shape)}")
    return [row[:4] for row in rows(value, "box_tensor")]


def stacked(values: list[Any]) -> Any:
    """Returns arrays of one shape as one array, with a new first dimension. Needs NumPy."""
    import numpy as np

    return np.stack([np.asarray(_host(value, lists=False)) for value in values])


def transposed(value: Any, order: Sequence[int]) -> Any:
    """Returns an array with its dimensions in another order. Needs NumPy."""
    import numpy as np

    return np.asarray(_host(value, lists=False)).transpose(order)


def numbers_of(value: Any, what: str) -> array[float]:
    """Returns the numbers of an array or a list, in order. ``what`` names it in an error."""
    found = _host(value, lists=True, what=what)
    if isinstance(found, memoryview):
        return array("d", found.cast("B").cast(found.format))  # type: ignore[call-overload]
    return array("d", found.reshape(-1).tolist())


def histogram(values: Any, bins: str | int) -> tuple[array[float], array[float]]:
    """Returns the edges of bins and the number of values in each, as NumPy chooses and counts them."""
    if not _has_numpy():
        raise ModuleNotFoundError(f"bins={bins!r} needs NumPy: install it, or give the edges of the bins", name="numpy")
    import numpy as np

    flat = np.asarray(_host(values, lists=False)).astype(np.float64).reshape(-1)
    counts, edges = np.histogram(flat, bins=bins)
    return array("d", edges), array("d", counts)


def check_dataformats(shape: tuple[int, ...], dataformats: str) -> None:
    """Checks that the letters of an image's dimensions fit its shape.

    Raises:
        AssertionError: A letter comes twice, or there are more or fewer letters than dimensions.
        ValueError: The letters are none of ``N``, ``C``, ``H``, ``W``; or no image has these dimensions or channels.
    """
    if len(set(dataformats)) != len(dataformats):
        raise AssertionError(
            f"You can not use the same dimension shorthand twice.             input_format: {dataformats}"
        )
    if len(shape) != len(dataformats):
        raise AssertionError(
            "size of input tensor and input format are different.         "
            f"tensor shape: {shape}, input_format: {dataformats}"
        )
    letters = "".join(sorted(dataformats.upper()))
    if letters not in ("HW", "CHW", "CHNW"):
        raise ValueError(f"dataformats must have the letters HW, CHW or NCHW in any order, got {dataformats!r}")
    sizes = dict(zip(dataformats.upper(), shape, strict=True))
    # As Pillow, which PyTorch's writer calls: two channels are gray and opacity. Its grid of images knows no opacity.
    allowed, listed = ((1, 3), "1 or 3") if "N" in sizes else ((1, 2, 3, 4), "1, 2, 3 or 4")
    if sizes.get("C", 1) not in allowed:
        what = "images" if "N" in sizes else "an image"
        raise ValueError(f"{what} must have {listed} channels, got {sizes['C']}: the shape {shape} as {dataformats!r}")
    if 0 in shape:
        raise ValueError(f"an image must have pixels, got the shape {shape}")
