"""The files of TensorBoard's projector."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forebay import _arrays
from forebay._forebay import sprite_of

logger = logging.getLogger("forebay")


def write(
    log_dir: str | os.PathLike[str],
    points: Any,
    metadata: Sequence[Any] | None,
    images: Any,
    step: Any,
    tag: str,
    header: Sequence[str] | None,
) -> str:
    """Writes the files of one embedding, and returns its entry in ``projector_config.pbtxt``."""
    number = str(0 if step is None else step).zfill(5)
    subdir = f"{number}/{_encoded(tag)}"
    folder = Path(log_dir, subdir)
    if folder.is_dir():
        logger.warning("the folder of the embedding is there already: did you set global_step? (%s)", folder)
    elif folder.exists():
        raise NotADirectoryError(f"Path: `{folder}` exists, but is a file. Cannot proceed.")
    try:
        rows = _arrays.rows(points, "mat")
    except ValueError:
        raise AssertionError("mat should be 2D, where mat.size(0) is the number of data points") from None
    if metadata is not None and len(metadata) != len(rows):
        raise AssertionError("#labels should equal with #data points")
    # Arrays have no truth value.
    has_header = header is not None and len(header) > 0
    if metadata is not None and header is not None and has_header and len(metadata) and len(header) != len(metadata[0]):
        raise AssertionError("len of header must be equal to the number of columns in metadata")
    sprite: tuple[bytes, int, int] | None = None
    if images is not None:
        data, code, shape = _arrays.raw(images)
        if shape[0] != len(rows):
            raise AssertionError("#images should equal with #data points")
        _arrays.check_dataformats(shape, "NCHW")
        sprite = sprite_of(data, code, shape, math.ceil(len(rows) ** 0.5)), shape[3], shape[2]

    folder.mkdir(parents=True, exist_ok=True)
    _write_rows(folder / "tensors.tsv", rows)
    entry = [f'  tensor_name: "{_escaped(f"{tag}:{number}")}"']
    if metadata is not None:
        table = [header, *metadata] if header is not None and has_header else [[label] for label in metadata]
        _write_rows(folder / "metadata.tsv", table)
        entry.append(f'  metadata_path: "{_escaped(subdir)}/metadata.tsv"')
    if sprite is not None:
        png, width, height = sprite
        (folder / "sprite.png").write_bytes(png)
        image_path = f'    image_path: "{_escaped(subdir)}/sprite.png"'
        size = [f"    single_image_dim: {width}", f"    single_image_dim: {height}"]
        entry += ["  sprite {", image_path, *size, "  }"]
    entry.append(f'  tensor_path: "{_escaped(subdir)}/tensors.tsv"')
    return "\n".join(["embeddings {", *entry, "}\n"])


def _write_rows(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Writes a file of values with tabs between them, row by row."""
    lines = ("\t".join(str(value) for value in row) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _encoded(tag: str) -> str:
    """Returns the tag as the name of a folder."""
    return tag.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def _escaped(text: str) -> str:
    """Returns a text as it stands between quotes in the text format of protocol buffers."""
    plain = {'"': '\\"', "\\": "\\\\"}
    return "".join(
        plain.get(char) or (char if 32 <= ord(char) < 127 else "".join(f"\\{byte:03o}" for byte in char.encode()))
        for char in text
    )
