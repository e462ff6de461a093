"""TensorBoard's writer: ``from forebay.tensorboard import SummaryWriter``.

The class has the methods, parameters, defaults and files of ``torch.utils.tensorboard.SummaryWriter``, and needs neither PyTorch nor
TensorBoard. A call hands its data over and returns; one thread of Rust encodes and writes it.
"""

from __future__ import annotations

import json
import logging
import math
import numbers
import os
import signal
import socket
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from forebay import _arrays, _drawing, _embedding, _export, _openvino
from forebay._forebay import Writer, default_edges, frames_of, pixels_of
from forebay._progress import Progress
from forebay.sinks import local

if TYPE_CHECKING:
    from forebay._global_writer import GlobalSummaryWriter

__all__ = ["FileWriter", "GlobalSummaryWriter", "SummaryWriter"]

logger = logging.getLogger("forebay")

#: The most seconds that a close takes.
CLOSE_TIMEOUT = 10.0


class SummaryWriter(Writer):
    """Writes a folder of TensorBoard event files.

    Every method returns before its data is written. What was added is in the file a second later at the latest, and after ``flush`` and
    ``close``. Adding never waits for the disk until 32,768 events, or 256 MiB of them, are waiting. Then a call waits for space, a second
    at most. A disk that makes none in that time has cost the program its second: what finds the queue full is dropped and counted, without
    a wait, until half of the queue is free.

    A writer that was closed opens a new file when something is added to it. In a forked child, a writer of the parent writes nothing, and
    never hangs; see ``in_child``. It can be pickled: the copy is like a writer in a forked child. It has the attributes of a class that is
    derived from this one, but for those whose names begin with ``_``.

    Args:
        log_dir: The folder to write to, also when the program goes to another directory. Defaults to
            ``runs/<month><day>_<time>_<host><comment>``.
        comment: The end of the default folder's name. Has no effect where ``log_dir`` is given.
        purge_step: The step at which a run goes on that was interrupted: TensorBoard hides what was written of this step and later
            ones before.
        max_queue: Accepted for PyTorch's sake. The queue is bounded by its own limits.
        flush_secs: The most seconds until data is in the file, at most 1.
        filename_suffix: The end of the names of all files.
        in_child: What a writer of the parent does in a forked child, or unpickled in another process: ``"ignore"`` counts what is added
            and writes nothing; ``"reopen"`` writes to ``<log_dir>/pid_<process>``.
        logdir: tensorboardX's name of ``log_dir``.
        write_to_disk: As in tensorboardX: ``False`` counts what is added as ignored, makes no folder, and writes nothing.
        comet_config: Accepted for tensorboardX's sake. Nothing is sent to Comet.
        flush_on_sigterm: Whether SIGTERM has what was added written, within 5 seconds, before it ends the process as ever. A handler of
            the program's own takes its place, whenever it is set. Without effect in process 1, which SIGTERM does not end.

    Raises:
        OSError: The folder or the file cannot be created. Where a writer cannot be opened later, in a child or again after a close, what is
            added to it counts as ignored, and that is logged once.
        TypeError: An argument is of another type.
        ValueError: ``log_dir`` and ``logdir`` are both given, ``log_dir`` is an address of a remote file system, ``flush_secs`` is not a
            number, or ``in_child`` is unknown.

    Example:
        >>> with SummaryWriter("runs/first") as writer:
        ...     for step in range(100):
        ...         writer.add_scalar("train/loss", 1 / (step + 1), step)
    """

    log_dir: str | os.PathLike[str]
    purge_step: int | None
    max_queue: int
    flush_secs: float
    filename_suffix: str
    _exit_turn = 1
    _edges: list[float] | None
    #: The step and the moment of what is added without: see `use_metadata`.
    _defaults: tuple[int | None, float | None] = (None, None)
    _file_writer: weakref.ref[FileWriter] | None

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str | None = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
        write_to_disk: bool | None = True,
        *,
        in_child: Literal["ignore", "reopen"] = "ignore",
        logdir: str | os.PathLike[str] | None = None,
        comet_config: dict[str, Any] | None = None,
        flush_on_sigterm: bool = True,
    ) -> None:
        if log_dir and logdir:
            raise ValueError(f"log_dir and logdir are one argument, got {log_dir!r} and {logdir!r}")
        for name, value in (("max_queue", max_queue), ("flush_secs", flush_secs), ("purge_step", purge_step)):
            # Numbers of NumPy and PyTorch have it as well.
            if not hasattr(value, "__float__") and not (value is None and name == "purge_step"):
                raise TypeError(f"{name} must be a number, got {value!r}")
        log_dir = log_dir or logdir
        # PyTorch looks at a comment only where it makes a name of it.
        for name, text in (("comment", "" if log_dir else comment), ("filename_suffix", filename_suffix)):
            if not isinstance(text, str):
                raise TypeError(f"{name} must be a str, got {text!r}")
        for name, choice in (("write_to_disk", write_to_disk or False), ("flush_on_sigterm", flush_on_sigterm)):
            if choice not in (True, False):
                raise TypeError(f"{name} must be True or False, got {choice!r}")
        if not isinstance(comet_config, (dict, NoneType)):
            raise TypeError(f"comet_config must be a dict or None, got {comet_config!r}")
        if not log_dir:
            now = datetime.now().strftime("%b%d_%H-%M-%S")
            log_dir = os.path.join("runs", f"{now}_{socket.gethostname()}{comment}")
        local("log_dir", log_dir)
        if in_child not in ("ignore", "reopen"):
            raise ValueError(f"in_child must be 'ignore' or 'reopen', got {in_child!r}")
        self.log_dir = log_dir
        self.max_queue = max_queue
        self.flush_secs = flush_secs
        self.filename_suffix = filename_suffix
        self._flush_on_sigterm = bool(flush_on_sigterm)
        if comet_config is not None and not comet_config.get("disabled", False):
            logger.warning("comet_config has no effect: nothing is sent to Comet")
        if write_to_disk:
            first = None if purge_step is None else int(purge_step)
            if first is not None and not -1 << 63 <= first < 1 << 63:
                raise ValueError(f"purge_step must be in -2**63..=2**63-1, got {purge_step}")
            self._begin(in_child, first, is_copy=False)
        else:
            # What a copy of another process's writer is: it counts, and writes nothing.
            self._begin("ignore", None, is_copy=True)

    @property
    def default_bins(self) -> list[float]:
        """The edges of the bins that ``add_histogram`` uses by default: 1,549 of them, unless others were set."""
        if self._edges is None:
            self._edges = default_edges()
        return self._edges

    @default_bins.setter
    def default_bins(self, edges: Sequence[float]) -> None:
        self._edges = list(edges)

    @property
    def file_writer(self) -> FileWriter | None:
        """The writer of events below this one, or ``None`` while it is closed."""
        return self._files() if self._is_open else None

    @property
    def all_writers(self) -> dict[str, FileWriter] | None:
        """The writer of events below this one, by its folder, or ``None`` while it is closed."""
        return {str(self.log_dir): self._files()} if self._is_open else None

    def _get_file_writer(self) -> FileWriter:
        """Returns the writer of events below this one, and opens it if it is closed."""
        if self._folder is not None:
            self._reopen()
        return self._files()

    def _files(self) -> FileWriter:
        """Returns the one writer of events, as long as somebody has it."""
        # It has the writer, which does not have it: a writer that nobody has any more is closed at once.
        files = None if self._file_writer is None else self._file_writer()
        if files is None:
            files = FileWriter(self)
            self._file_writer = weakref.ref(files)
        return files

    @property
    def logdir(self) -> str | os.PathLike[str]:
        """TensorboardX's name of ``log_dir``."""
        return self.log_dir

    def get_logdir(self) -> str | os.PathLike[str]:
        """Returns the folder that it writes to."""
        return self.log_dir

    @contextmanager
    def use_metadata(self, *, global_step: Any = None, walltime: float | None = None) -> Iterator[Self]:
        """Gives a step and a moment to everything that is added within the block without one: ``with writer.use_metadata(global_step=7):``.

        They count for every thread. TensorboardX has this method, and PyTorch's writer has not.

        Args:
            global_step: The step.
            walltime: The moment, in seconds since 1970.

        Raises:
            AssertionError: Neither is given, or another such block has not ended.
        """
        if global_step is None and walltime is None:
            raise AssertionError("At least one of `global_step` or `walltime` must be provided.")
        if self._defaults != (None, None):
            raise AssertionError("Default metadata is already set.")
        self._defaults = (
            None if global_step is None else int(global_step),
            None if walltime is None else float(walltime),
        )
        self._has_defaults = True
        try:
            yield self
        finally:
            self._has_defaults = False
            self._defaults = (None, None)

    def export_scalars_to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes the scalars that were added since the last export to a file: ``{tag: [[walltime, step, value], ...], ...}``.

        Those of ``add_scalars`` have the key ``<log_dir>/<main_tag>/<key>``, as tensorboardX names them; those of ``add_scalar`` have their
        tag. (TensorboardX exports the former alone.) Nothing is kept in memory for this: the files of the writer are flushed and read back
        here, in Python: 100,000 scalars a second or so, and 10 MB of memory. So the values have the 32 bits of the file, what is not in
        the file is missing, and a writer with ``write_to_disk=False`` exports nothing. What others have written to the same folder is
        left out.

        Args:
            path: The file.

        Raises:
            OSError: The file cannot be written.
        """
        if self._is_open:
            self.flush()
        folder = self._folder
        # Keys have the folder as it was given.
        shown = os.fspath(self.log_dir) if folder in (None, self._root) else os.path.join(self.log_dir, folder.name)
        _export.export(path, folder, shown, self._has_begun, self._exported)

    def add_hparams(
        self,
        hparam_dict: dict[str, Any],
        metric_dict: dict[str, Any],
        hparam_domain_discrete: dict[str, list[Any]] | None = None,
        run_name: str | None = None,
        global_step: Any = None,
        *,
        name: str | None = None,
    ) -> None:
        """Adds a set of hyper-parameters and the metrics that they led to, as a run of its own below this one.

        Args:
            hparam_dict: Hyper-parameters by name: numbers, texts, booleans; ``None`` is left out.
            metric_dict: Metrics by name: what ``add_scalar`` takes.
            hparam_domain_discrete: All values that a hyper-parameter may have, by its name.
            run_name: The folder of the run, within ``log_dir``. Defaults to the present time. With ``"."``, or ``log_dir`` itself, they
                are added to this run.
            global_step: The step of the metrics.
            name: tensorboardX's name of ``run_name``.

        Raises:
            TypeError: An argument is no ``dict``, or a domain is no list of values of the type of its hyper-parameter.
            ValueError: A hyper-parameter of another type, or a folder that does not lie in ``log_dir``.
        """
        if type(hparam_dict) is not dict or type(metric_dict) is not dict:
            raise TypeError("hparam_dict and metric_dict should be dictionary.")
        settings = _hparams(hparam_dict, hparam_domain_discrete)
        metrics = [(name, _arrays.scalar(value)) for name, value in metric_dict.items()]
        self._add_hparams(self._sub_run(run_name or name or str(time.time())), settings, metrics, global_step)

    def _sub_run(self, run_name: str | os.PathLike[str]) -> str | None:
        """Returns the name of a folder within ``log_dir``, or ``None`` for that itself."""
        name = os.path.relpath(os.path.join(self._root, run_name), self._root)
        if name == os.pardir or name.startswith(os.pardir + os.sep):
            raise ValueError(f"run_name must be a folder within {os.fspath(self.log_dir)!r}, got {os.fspath(run_name)!r}")
        return None if name == os.curdir else name

    def add_tensor(self, tag: str, tensor: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """Adds a whole tensor.

        Args:
            tag: The name.
            tensor: A tensor or an array.
            global_step: The step.
            walltime: The moment, in seconds since 1970. Defaults to now.

        Raises:
            ValueError: A tensor of 2 GiB or more, or of a type that has no place in a file.
        """
        try:
            data, code, shape = _arrays.raw(tensor)
        except TypeError as error:
            # PyTorch's own word for types that NumPy does not have, such as numbers of eight bits.
            if not str(error).startswith("Got unsupported ScalarType"):
                raise
            raise ValueError(f"{tag} has unsupported tensor dtype {tensor.dtype}") from error
        if len(data) >= 1 << 31:
            raise ValueError("tensor is bigger than protocol buffer's hard limit of 2GB in size")
        self._add_tensor(tag, data, code, shape, global_step, walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: str | int | Sequence[float] = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Adds the distribution of values. They are copied here, and counted on the worker.

        Args:
            tag: The name.
            values: A tensor or an array of any shape.
            global_step: The step.
            bins: ``"tensorflow"`` for the default bins, the edges of bins, or what ``numpy.histogram`` takes; that is counted here.
            walltime: The moment, in seconds since 1970. Defaults to now.
            max_bins: The most bins; neighbours are joined.

        Raises:
            ValueError: There are no values, or the edges do not grow.
            ModuleNotFoundError: Bins for which NumPy is needed, where it is not installed.
        """
        data, code, shape = _arrays.raw(values)
        if not len(data):
            raise ValueError("The input has no element.")
        if max_bins is not None:
            if max_bins < 1:
                raise ValueError(f"max_bins must be 1 or more, got {max_bins}")
            # No histogram has more.
            max_bins = min(max_bins, 1 << 31)
        edges, counts = None, None
        if isinstance(bins, str) and bins == "tensorflow":
            edges = None if self._edges is None else _arrays.edges(self._edges, "default_bins")
        elif isinstance(bins, (str, int, numbers.Integral)):
            edges, counts = _arrays.histogram(values, bins)
        else:
            edges = _arrays.edges(bins, "bins")
        self._add_histogram(tag, data, code, edges, counts, max_bins, global_step, walltime)

    def add_histogram_raw(
        self,
        tag: str,
        min: float,  # noqa: A002 - PyTorch's name
        max: float,  # noqa: A002
        num: float,
        sum: float,  # noqa: A002
        sum_squares: float,
        bucket_limits: Any,
        bucket_counts: Any,
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Adds a distribution that was counted already.

        Args:
            tag: The name.
            min: The least value.
            max: The greatest value.
            num: The number of values.
            sum: The sum of the values.
            sum_squares: The sum of their squares.
            bucket_limits: The right edges of the bins.
            bucket_counts: The number of values in each bin.
            global_step: The step.
            walltime: The moment, in seconds since 1970. Defaults to now.

        Raises:
            ValueError: Not as many edges as counts.
        """
        if len(bucket_limits) != len(bucket_counts):
            raise ValueError("len(bucket_limits) != len(bucket_counts), see the document.")
        given = {"min": min, "max": max, "num": num, "sum": sum, "sum_squares": sum_squares}
        # What is not known, as in a message of TensorBoard.
        numbers = [0.0 if each is None else _arrays.number_of(each, name) for name, each in given.items()]
        limits = _arrays.floats(bucket_limits, "bucket_limits")
        counts = _arrays.floats(bucket_counts, "bucket_counts")
        self._add_histogram_raw(tag, numbers, _arrays.aligned(limits), _arrays.aligned(counts), global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """Adds an image. It is copied here, and encoded as PNG on the worker.

        Args:
            tag: The name.
            img_tensor: The image: integers of 8 bits from 0 to 255, or numbers of another type from 0 to 1. What is beyond is clipped.
            global_step: The step.
            walltime: The moment, in seconds since 1970. Defaults to now.
            dataformats: The meaning of the dimensions, such as ``"CHW"``, ``"HWC"``, ``"HW"``; ``"NCHW"`` for several images.

        Raises:
            AssertionError: ``dataformats`` does not fit the shape.
        """
        self._add_pixels(tag, img_tensor, dataformats, False, global_step, walltime)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Adds several images, tiled into one with eight in a row.

        Args:
            tag: The name.
            img_tensor: The images; see ``add_image``. A list of images of one size needs NumPy, and the ``dataformats`` of one of them.
            global_step: The step.
            walltime: The moment, in seconds since 1970. Defaults to now.
            dataformats: The meaning of the dimensions, such as ``"NCHW"`` or ``"NHWC"``.

        Raises:
            AssertionError: ``dataformats`` does not fit the shape.
        """
        if isinstance(img_tensor, list):
            img_tensor, dataformats = _arrays.stacked(img_tensor), f"N{dataformats}"
        self._add_pixels(tag, img_tensor, dataformats, False, global_step, walltime)

    def _add_pixels(
        self, tag: str, pixels: Any, dataformats: str, opaque: bool, step: Any, walltime: float | None
    ) -> None:
        """Adds an image, or several that are tiled; without its fourth channel where it is opaque."""
        data, code, shape = _arrays.raw(pixels)
        _arrays.check_dataformats(shape, dataformats)
        self._add_image(tag, data, code, shape, dataformats.upper(), opaque, step, walltime)

    def add_image_with_boxes(
        self,
        tag: str,
        img_tensor: Any,
        box_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        rescale: float = 1,
        dataformats: str = "CHW",
        labels: str | Sequence[str] | None = None,
    ) -> None:
        """Adds an image with boxes drawn into it. Needs Pillow.

        Args:
            tag: The name.
            img_tensor: The image; see ``add_image``.
            box_tensor: The boxes, each with its left, upper, right and lower edge in pixels. Further columns have no effect.
            global_step: The step.
            walltime: The moment, in seconds since 1970. Defaults to now.
            rescale: The factor by which the image is made larger.
            dataformats: The meaning of the dimensions.
            labels: A text for each box.

        Raises:
            AssertionError: ``dataformats`` does not fit the shape.
            ModuleNotFoundError: Pillow is not installed.
            ValueError: The boxes do not have the shape (boxes, 4), or more columns.
        """
        data, code, shape = _arrays.raw(img_tensor)
        _arrays.check_dataformats(shape, dataformats)
        boxes = _arrays.boxes(box_tensor)
        labels = [labels] if isinstance(labels, str) else labels
        if labels is not None and len(labels) != len(boxes):
            labels = None
        pixels, height, width, channels = pixels_of(data, code, shape, dataformats.upper())
        drawn, size = _drawing.boxes(pixels, (width, height), channels, boxes, labels, rescale)
        self._add_drawn(tag, drawn, size, (height, width, channels), global_step, walltime)

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: Any = None,
        close: bool = True,
        walltime: float | None = None,
    ) -> None:
        """Adds a figure of Matplotlib, or a list of figures. It is drawn here, and encoded as PNG on the worker.

        Args:
            tag: The name.
            figure: The figure, or a list of figures of one size.
            global_step: The step.
            close: Whether the figure is closed.
            walltime: The moment, in seconds since 1970. Defaults to now.
        """
        if isinstance(figure, list):
            pixels: Any = _drawing.figures(figure, close)
            self._add_pixels(tag, pixels, "NHWC", True, global_step, walltime)
        else:
            pixels = _drawing.figure(figure, close)
            self._add_pixels(tag, pixels, "HWC", True, global_step, walltime)

    def add_video(
        self,
        tag: str,
        vid_tensor: Any,
        global_step: Any = None,
        fps: float = 4,
        walltime: float | None = None,
        dataformats: str = "NTCHW",
    ) -> None:
        """Adds a video as an animated GIF. Needs moviepy or Pillow; without both, nothing is added and a warning is logged.

        Args:
            tag: The name.
            vid_tensor: The video, of the shape (videos, time, channels, height, width): integers of 8 bits from 0 to 255, or numbers of
                another type from 0 to 1. Several videos are tiled.
            global_step: The step.
            fps: Frames a second.
            walltime: The moment, in seconds since 1970. Defaults to now.
            dataformats: The meaning of the dimensions, as tensorboardX has it. Another than the default needs NumPy.

        Raises:
            ValueError: Another number of dimensions; other than 1, 3 or 4 channels; no frames or no pixels; other letters; or ``fps`` is
                not more than 0.
        """
        if not fps > 0:
            raise ValueError(f"fps must be more than 0, got {fps}")
        if sorted(dataformats) != sorted("NTCHW"):
            raise ValueError(f"dataformats must have the letters NTCHW in any order, got {dataformats!r}")
        data, code, shape = _arrays.raw(vid_tensor)
        if len(shape) == 5 and dataformats != "NTCHW":
            data, code, shape = _arrays.raw(_arrays.transposed(vid_tensor, [dataformats.index(each) for each in "NTCHW"]))
        if len(shape) != 5:
            raise ValueError(f"a video must have 5 dimensions (N, T, C, H, W), got {len(shape)}: {tuple(shape)}")
        if shape[2] not in (1, 3, 4):
            raise ValueError(f"a video must have 1, 3 or 4 channels, got {shape[2]}: {tuple(shape)}")
        if 0 in shape:
            raise ValueError(f"a video must have frames with pixels, got none: {tuple(shape)}")
        frames, (times, height, width, channels) = frames_of(data, code, shape)
        gif = _drawing.gif(frames, times, (width, height), channels, fps)
        if gif is not None:
            self._add_encoded_image(tag, gif, (height, width, channels), global_step, walltime)

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: Any = None,
        sample_rate: int = 44100,
        walltime: float | None = None,
    ) -> None:
        """Adds a sound of one channel. It is copied here, and encoded as WAV of 16 bits on the worker.

        Args:
            tag: The name.
            snd_tensor: The samples, from -1 to 1; what is beyond is clipped.
            global_step: The step.
            sample_rate: Samples a second.
            walltime: The moment, in seconds since 1970. Defaults to now.

        Raises:
            AssertionError: More than one channel.
            ValueError: No samples, or no such ``sample_rate``.
        """
        if not 1 <= int(sample_rate) < 1 << 32:
            raise ValueError(f"sample_rate must be from 1 to {(1 << 32) - 1}, got {sample_rate}")
        data, code, shape = _arrays.raw(snd_tensor)
        if not len(data):
            raise ValueError("a sound must have samples, got none")
        if sum(1 for length in shape if length != 1) != 1:
            raise AssertionError("input tensor should be 1 dimensional.")
        self._add_audio(tag, data, code, int(sample_rate), global_step, walltime)

    def add_text(
        self, tag: str, text_string: str, global_step: Any = None, walltime: float | None = None
    ) -> None:
        """Adds a text, which TensorBoard shows as Markdown.

        Args:
            tag: The name; the tag in the file is ``<tag>/text_summary``.
            text_string: The text.
            global_step: The step.
            walltime: The moment, in seconds since 1970. Defaults to now.
        """
        self._add_text(tag, text_string, global_step, walltime)

    def add_onnx_graph(self, prototxt: str | os.PathLike[str]) -> None:
        """Adds the graph of a model in the format ONNX. Needs PyTorch, TensorBoard and onnx.

        Args:
            prototxt: The path of the model.
        """
        from torch.utils.tensorboard._onnx_graph import load_onnx_graph

        self._get_file_writer().add_onnx_graph(load_onnx_graph(prototxt))

    def add_openvino_graph(self, xmlname: str | os.PathLike[str]) -> None:
        """Adds the graph of a model of OpenVINO, as tensorboardX does. Needs neither OpenVINO nor TensorBoard.

        Args:
            xmlname: The path of the model's XML file.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is no model of OpenVINO.
        """
        self._add_graph(_openvino.graph(xmlname), None, None)

    def add_graph(
        self, model: Any, input_to_model: Any = None, verbose: bool = False, use_strict_trace: bool = True
    ) -> None:
        """Adds the graph of a model. Needs PyTorch and TensorBoard, whose functions trace the model.

        Args:
            model: A ``torch.nn.Module``.
            input_to_model: What the model is called with.
            verbose: Whether the graph is printed.
            use_strict_trace: The argument ``strict`` of ``torch.jit.trace``.
        """
        from torch.utils.tensorboard._pytorch_graph import graph

        self._get_file_writer().add_graph(graph(model, input_to_model, verbose, use_strict_trace))

    def add_embedding(
        self,
        mat: Any,
        metadata: Sequence[Any] | None = None,
        label_img: Any = None,
        global_step: Any = None,
        tag: str = "default",
        metadata_header: Sequence[str] | None = None,
    ) -> None:
        """Adds points for TensorBoard's projector: files in the run's folder, which are written here.

        Args:
            mat: The points, one a row.
            metadata: A label for each point; several where there is a ``metadata_header``.
            label_img: An image for each point, of the shape (points, channels, height, width).
            global_step: The step.
            tag: The name.
            metadata_header: The names of the labels' columns.

        Raises:
            AssertionError: Not as many labels or images as points, or ``mat`` is no matrix.
            NotADirectoryError: A file is where the folder of the points would be.
        """
        folder = self._reopen()
        if folder is None:
            self._ignore()
            return
        step = self._defaults[0] if global_step is None else global_step
        try:
            entry = _embedding.write(folder, mat, metadata, label_img, step, tag, metadata_header)
            entries = self._embeddings.setdefault(str(folder), [])
            entries.append(entry)
            Path(folder, "projector_config.pbtxt").write_text("".join(entries), encoding="utf-8")
        except NotADirectoryError:
            raise
        except OSError as error:
            self._ignore()
            logger.warning("an embedding is not written: %s", error)

    def add_pr_curve(
        self,
        tag: str,
        labels: Any,
        predictions: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Adds a curve of precision and recall, which is computed on the worker.

        Args:
            tag: The name.
            labels: What is true of each element: 0 or 1.
            predictions: The probability that was predicted for each, from 0 to 1.
            global_step: The step.
            num_thresholds: The number of points of the curve, at most 127.
            weights: A weight for each element, or one for all.
            walltime: The moment, in seconds since 1970. Defaults to now.

        Raises:
            ValueError: Labels, predictions and weights do not have the same number of elements, or fewer than 2 thresholds.
        """
        thresholds = min(int(num_thresholds), 127)
        if thresholds < 2:
            raise ValueError(f"num_thresholds must be 2 or more, got {num_thresholds}")
        arrays = [_arrays.raw(labels), _arrays.raw(predictions)]
        if weights is not None:
            arrays.append(_arrays.raw(weights, lists=True, what="weights"))
        sizes = [math.prod(shape) for _, _, shape in arrays]
        if sizes[0] != sizes[1] or sizes[2:] not in ([], [1], sizes[:1]):
            raise ValueError(f"labels, predictions and weights must have the same number of elements, got {sizes}")
        self._add_pr_curve(tag, [(data, code) for data, code, _ in arrays], thresholds, global_step, walltime)

    def add_pr_curve_raw(
        self,
        tag: str,
        true_positive_counts: Any,
        false_positive_counts: Any,
        true_negative_counts: Any,
        false_negative_counts: Any,
        precision: Any,
        recall: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Adds a curve of precision and recall that was computed already.

        Args:
            tag: The name.
            true_positive_counts: The true positives at each threshold.
            false_positive_counts: The false positives at each threshold.
            true_negative_counts: The true negatives at each threshold.
            false_negative_counts: The false negatives at each threshold.
            precision: The precision at each threshold.
            recall: The recall at each threshold.
            global_step: The step.
            num_thresholds: Has no effect: there are as many thresholds as counts.
            weights: Has no effect, as in PyTorch.
            walltime: The moment, in seconds since 1970. Defaults to now.

        Raises:
            ValueError: The six do not have the same number of elements.
        """
        del num_thresholds, weights
        curves = {
            "true_positive_counts": true_positive_counts, "false_positive_counts": false_positive_counts,
            "true_negative_counts": true_negative_counts, "false_negative_counts": false_negative_counts,
            "precision": precision, "recall": recall,
        }  # fmt: skip
        rows = [_arrays.numbers_of(curve, name) for name, curve in curves.items()]
        if len({len(row) for row in rows}) != 1:
            raise ValueError("all input arrays must have the same shape")
        self._add_pr_curve_raw(tag, [_arrays.aligned(row) for row in rows], global_step, walltime)

    def add_custom_scalars_multilinechart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Adds a chart that shows several scalars, in TensorBoard's tab of custom scalars.

        Args:
            tags: The tags of the scalars.
            category: The name of the group of charts.
            title: The name of the chart.
        """
        self.add_custom_scalars({category: {title: ["Multiline", list(tags)]}})

    def add_custom_scalars_marginchart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Adds a chart that shows a scalar between two others, in TensorBoard's tab of custom scalars.

        Args:
            tags: Three tags: the value, its lower and its upper limit.
            category: The name of the group of charts.
            title: The name of the chart.

        Raises:
            AssertionError: Not three tags.
        """
        if len(tags) != 3:
            raise AssertionError(f"Expected 3 tags, got {len(tags)}.")
        self.add_custom_scalars({category: {title: ["Margin", list(tags)]}})

    def add_custom_scalars(self, layout: dict[str, dict[str, Sequence[Any]]]) -> None:
        """Adds charts to TensorBoard's tab of custom scalars. The last call of a writer counts.

        Args:
            layout: Charts by their title, by their category: ``{"losses": {"both": ["Multiline", ["loss/train", "loss/test"]]}}``. A
                chart is ``["Multiline", tags]`` or ``["Margin", [value, lower, upper]]``.

        Raises:
            AssertionError: A margin chart without three tags.
        """
        categories = []
        for category, charts in layout.items():
            for chart in charts.values():
                if chart[0] == "Margin" and len(chart[1]) != 3:
                    raise AssertionError("len(tags) != 3")
            shown = [(title, chart[0] == "Margin", list(chart[1])) for title, chart in charts.items()]
            categories.append((category, shown))
        self._add_layout(categories)

    def add_mesh(
        self,
        tag: str,
        vertices: Any,
        colors: Any = None,
        faces: Any = None,
        config_dict: dict[str, Any] | None = None,
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Adds a mesh or a cloud of points.

        Args:
            tag: The name.
            vertices: The points, of the shape (batch, points, 3).
            colors: The colour of each point, from 0 to 255, of the same shape.
            faces: The triangles, each by the numbers of three points, of the shape (batch, triangles, 3).
            config_dict: Settings of Three.js.
            global_step: The step.
            walltime: The moment, in seconds since 1970. Defaults to now.

        Raises:
            ValueError: An array of other than three dimensions.
        """
        config = "{}" if config_dict is None else json.dumps(config_dict, sort_keys=True)
        arrays: list[tuple[str, Any, str, tuple[int, ...]]] = []
        for name, array in (("vertices", vertices), ("faces", faces), ("colors", colors)):
            if array is not None or name == "vertices":
                data, code, shape = _arrays.raw(array, lists=True, what=name)
                if len(shape) != 3:
                    raise ValueError(f"{name} must have the shape (batch, points, 3), got {tuple(shape)}")
                arrays.append((name, data, code, shape))
        self._add_mesh(tag, arrays, config, global_step, walltime)

    def flush(self) -> None:
        """Waits until everything that was added before is in its file, 10 seconds at most. Ctrl-C interrupts it."""
        _log(self._flush())

    def close(self) -> None:
        """Writes what is left, and closes the files, within 10 seconds. What is added later begins a new file.

        Where that takes more than a second, a line on the terminal tells how much is left. Ctrl-C raises ``KeyboardInterrupt`` when it is
        done.
        """
        self._close_within(CLOSE_TIMEOUT)

    def stats(self) -> dict[str, int]:
        """Returns what became of everything that was added in this process since the writer was opened last, also after it was closed.

        ``offered`` is the sum of ``processed``, ``pending``, ``evicted`` and ``rejected``. ``failed`` could not be written; ``ignored``
        was added in a child, to a copy, or to a writer that could not be opened again. ``waits`` is the number of calls that waited for
        space. PyTorch's writer has no such method.
        """
        return self._stats()

    def _watches_sigterm(self) -> bool:
        """Returns whether SIGTERM is to be watched for: where the program does, and in process 1, it is not."""
        return self._flush_on_sigterm and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and os.getpid() != 1

    def _not_opened(self, why: str) -> None:
        """Logs that it cannot be opened, in a process or at a time where nobody expects an error."""
        logger.warning("what is added to %s is ignored until it can be opened: %s", os.fspath(self.log_dir), why)

    def _close_at_exit(self, timeout: float) -> None:
        """Closes it at the end of the process: see ``_lifecycle``."""
        self._close_within(timeout)

    def _close_within(self, timeout: float) -> None:
        """Closes it, within so many seconds."""
        progress = Progress(os.fspath(self.log_dir), timeout)
        try:
            _log(progress.follow(self._close(timeout)) or [])
        finally:
            progress.end()

    def _restore(self, arguments: dict[str, Any]) -> None:
        """Begins as a copy of another process's writer."""
        for name in ("log_dir", "max_queue", "flush_secs", "filename_suffix", "_flush_on_sigterm"):
            setattr(self, name, arguments[name])
        self._begin(arguments["_in_child"], None, is_copy=True, folder=arguments["_root"])

    def _begin(
        self, in_child: Literal["ignore", "reopen"], purge_step: int | None, is_copy: bool, folder: str | None = None
    ) -> None:
        """Begins with nothing, and opens it unless it is a copy, whose folder is that of the original as an absolute path."""
        self._in_child = in_child
        self._file_writer = None
        self._edges = None
        # What the projector shows, by the folder that has it.
        self._embeddings: dict[str, list[str]] = {}
        # How much of each file the last export has read.
        self._exported: dict[str, int] = {}
        self._setup(
            folder or os.fspath(self.log_dir),
            float(self.flush_secs),
            purge_step,
            self.filename_suffix,
            in_child == "reopen",
            is_copy,
        )
        # As PyTorch does: a file that is opened later goes on where this one ends.
        self.purge_step = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        stats = self._stats()
        state = "open" if self._is_open else "closed"
        lost = stats["evicted"] + stats["rejected"] + stats["failed"]
        state += f": {stats['offered']:,} added, {stats['pending']:,} pending, {lost:,} lost"
        state += f", {stats['ignored']:,} ignored" if stats["ignored"] else ""
        return f"<{type(self).__name__} of {os.fspath(self.log_dir)!r}, {state}>"

    def __copy__(self) -> Self:
        # Two writers of one folder would hide each other's points.
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = {
            "log_dir": os.fspath(self.log_dir),
            "max_queue": self.max_queue,
            "flush_secs": self.flush_secs,
            "filename_suffix": self.filename_suffix,
            "_in_child": self._in_child,
            "_root": os.fspath(self._root),
            "_flush_on_sigterm": self._flush_on_sigterm,
        }
        # Attributes of a class that is derived from this one. They come behind the writer, which they may have within.
        own = {name: value for name, value in vars(self).items() if not name.startswith("_") and name not in (*arguments, "purge_step")}
        return (_unpickled, (type(self), arguments), own or None)


def _log(said: list[str]) -> None:
    """Logs what the worker had to say since the last call. It never calls Python itself."""
    for message in said:
        logger.warning("%s", message)


def _unpickled(kind: type[SummaryWriter], arguments: dict[str, Any]) -> SummaryWriter:
    """Makes a writer that stands for one of another process: see ``SummaryWriter``."""
    writer = kind.__new__(kind)
    writer._restore(arguments)
    return writer


def _hparams(hparams: dict[str, Any], domains: dict[str, list[Any]] | None) -> list[tuple[str, Any, list[Any] | None]]:
    """Returns the hyper-parameters as numbers and texts, each with the values that it may have."""
    domains = domains or {}
    if not isinstance(domains, dict):
        raise TypeError("parameter: hparam_domain_discrete should be a dictionary, nothing logged.")
    for name, domain in domains.items():
        kind = type(hparams.get(name))
        if name not in hparams or not isinstance(domain, list) or not all(isinstance(value, kind) for value in domain):
            raise TypeError(
                f"parameter: hparam_domain_discrete[{name}] should be a list of same type as hparam_dict[{name}]."
            )

    def plain(value: Any) -> float | str:
        """Returns a hyper-parameter as a number or a text."""
        if isinstance(value, str):
            return value
        if isinstance(value, (int, float)):
            return _arrays.scalar(value)
        cause: Exception | None = None
        if hasattr(value, "shape"):
            try:
                return _arrays.scalar(value)
            except (AssertionError, TypeError) as error:
                cause = error
        raise ValueError("value should be one of int, float, str, bool, or torch.Tensor") from cause

    return [
        (name, plain(value), [plain(each) for each in domains[name]] if name in domains else None)
        for name, value in hparams.items()
        if value is not None
    ]


class FileWriter:
    """Writer of TensorBoard's protocol buffers, below a ``SummaryWriter``: what its ``file_writer`` is.

    It takes messages that somebody else has made, such as those of ``tensorboard.compat.proto``.
    """

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def get_logdir(self) -> str:
        """Returns the folder that it writes to."""
        return str(self._writer.log_dir)

    def add_event(self, event: Any, step: Any = None, walltime: float | None = None) -> None:
        """Adds an event.

        Args:
            event: A message ``Event``.
            step: The step, in the place of the event's own.
            walltime: The moment, in seconds since 1970. Defaults to now.
        """
        parts = type(event)()
        parts.CopyFrom(event)
        parts.ClearField("wall_time")
        parts.ClearField("step")
        # As tensorboardX: what has no step has 0, unless all within a block have one.
        step = (event.step or None) if step is None else step
        self._writer._add_event(parts.SerializeToString(), step, walltime)

    def add_summary(self, summary: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """Adds a summary.

        Args:
            summary: A message ``Summary``.
            global_step: The step.
            walltime: The moment, in seconds since 1970. Defaults to now.
        """
        self._writer._add_summary(summary.SerializeToString(), global_step, walltime)

    def add_graph(self, graph_profile: tuple[Any, Any], walltime: float | None = None) -> None:
        """Adds a graph.

        Args:
            graph_profile: A message ``GraphDef`` and one ``RunMetadata``.
            walltime: The moment, in seconds since 1970. Defaults to now.
        """
        graph, stepstats = graph_profile
        self._writer._add_graph(graph.SerializeToString(), stepstats.SerializeToString(), walltime)

    def add_onnx_graph(self, graph: Any, walltime: float | None = None) -> None:
        """Adds a graph.

        Args:
            graph: A message ``GraphDef``.
            walltime: The moment, in seconds since 1970. Defaults to now.
        """
        self._writer._add_graph(graph.SerializeToString(), None, walltime)

    add_openvino_graph = add_onnx_graph

    @contextmanager
    def use_metadata(self, *, global_step: Any = None, walltime: float | None = None) -> Iterator[Self]:
        """Gives a step and a moment to everything that is added within the block without one: see ``SummaryWriter``.

        Args:
            global_step: The step.
            walltime: The moment, in seconds since 1970.
        """
        with self._writer.use_metadata(global_step=global_step, walltime=walltime):
            yield self

    def flush(self) -> None:
        """Waits until everything that was added before is in its file."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the writer that it belongs to."""
        self._writer.close()

    def reopen(self) -> None:
        """Opens the writer that it belongs to, if it is closed."""
        self._writer._get_file_writer()

    def __repr__(self) -> str:
        return f"<FileWriter of {self.get_logdir()!r}>"


def __getattr__(name: str) -> Any:
    """Imports what is defined elsewhere."""
    # It needs this module, and few programs need it.
    if name != "GlobalSummaryWriter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from forebay._global_writer import GlobalSummaryWriter

    return GlobalSummaryWriter
