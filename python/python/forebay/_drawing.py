"""What other libraries draw: Matplotlib figures, boxes and GIFs by Pillow or moviepy. Each is imported where it is needed."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger("forebay")


def figure(shown: Any, close: bool) -> Any:
    """Draws a figure, and returns its pixels: height, width, and four bytes a pixel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # Of `None`, Matplotlib would draw an empty figure.
    if not hasattr(shown, "set_canvas"):
        raise TypeError(f"figure must be a figure of Matplotlib or a list of them, got {type(shown).__name__}")
    canvas: Any = FigureCanvasAgg(shown)
    canvas.draw()
    pixels = canvas.buffer_rgba()
    if close:
        from matplotlib import pyplot

        pyplot.close(shown)
    return pixels


def figures(shown: Sequence[Any], close: bool) -> Any:
    """Draws figures of one size, and returns their pixels in one array."""
    import numpy as np

    return np.stack([np.asarray(figure(each, close))[:, :, :3] for each in shown])


def boxes(
    pixels: bytes,
    size: tuple[int, int],
    channels: int,
    edges: Sequence[Sequence[float]],
    labels: Sequence[str | None] | None,
    rescale: float,
) -> tuple[bytes, tuple[int, int]]:
    """Draws boxes into an image, and returns its pixels and its new size: width and height."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.frombytes({2: "LA", 3: "RGB", 4: "RGBA"}[channels], size, pixels)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default()
    for place, (left, top, right, bottom) in enumerate(edges):
        outline = [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
        draw.line(outline, width=2, fill="Red")
        label = None if labels is None else labels[place]
        if label is not None and (label := str(label)):
            x0, y0, x1, y1 = font.getbbox(label)
            width, height = x1 - x0, y1 - y0
            # A twentieth of the height, in whole pixels.
            margin = -(-height // 20)
            draw.rectangle([(left, bottom - height - 2 * margin), (left + width, bottom)], fill="Red")
            draw.text((left + margin, bottom - height - margin), label, fill="black", font=font)
    image = image.resize((int(size[0] * rescale), int(size[1] * rescale)), Image.Resampling.LANCZOS)
    return image.tobytes(), image.size


def gif(pixels: bytes, times: int, size: tuple[int, int], channels: int, fps: float) -> bytes | None:
    """Makes an animated GIF of the frames of a video, or returns ``None`` where no library is there to do it."""
    width, height = size
    step = width * height * channels
    frames = [pixels[place * step : (place + 1) * step] for place in range(times)]
    made = _gif_by_moviepy(frames, size, channels, fps)
    if made is None:
        made = _gif_by_pillow(frames, size, channels, fps)
    if made is None:
        logger.warning("add_video needs moviepy or Pillow, and neither is installed: the video is not written")
    return made


def _gif_by_moviepy(frames: Sequence[bytes], size: tuple[int, int], channels: int, fps: float) -> bytes | None:
    """Makes a GIF by moviepy, or returns ``None`` where it is not installed."""
    try:
        import numpy as np
        from moviepy.video.io.ImageSequenceClip import ImageSequenceClip
    except ImportError:
        return None
    shape = (size[1], size[0], channels)
    clip = ImageSequenceClip([np.frombuffer(frame, np.uint8).reshape(shape) for frame in frames], fps=fps)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "video.gif")
        clip.write_gif(path, logger=None)
        with open(path, "rb") as file:
            return file.read()


def _gif_by_pillow(frames: Sequence[bytes], size: tuple[int, int], channels: int, fps: float) -> bytes | None:
    """Makes a GIF by Pillow, or returns ``None`` where it is not installed."""
    try:
        from PIL import Image
    except ImportError:
        return None
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    images = [Image.frombytes(mode, size, frame) for frame in frames]
    out = io.BytesIO()
    images[0].save(out, format="GIF", save_all=True, append_images=images[1:], duration=1000 / fps, loop=0)
    return out.getvalue()
