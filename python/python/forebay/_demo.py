"""A small network that learns digits, logged by a run: ``forebay.demo()``, or ``python -m forebay demo``."""

from __future__ import annotations

import importlib.util
import os
import time
from typing import Any

import forebay
from forebay._collector import Report

#: The digits 0 to 9, each as seven rows of five dots: bits, the leftmost dot the highest.
_GLYPHS = (
    (14, 17, 19, 21, 25, 17, 14),
    (4, 12, 4, 4, 4, 4, 14),
    (14, 17, 1, 2, 4, 8, 31),
    (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2),
    (31, 16, 30, 1, 1, 17, 14),
    (6, 8, 16, 30, 17, 17, 14),
    (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14),
    (14, 17, 17, 15, 1, 2, 12),
)
_SIDE, _HIDDEN, _BATCH, _RATE, _MOMENTUM = 8, 64, 32, 0.15, 0.9
_TRAINING, _TEST = 2048, 512


def demo(dir: str | os.PathLike[str] = "runs", epochs: int = 12, seed: int = 1) -> Report:  # noqa: A002 - as in `init`
    """Trains a small network on drawn digits, logs all of it, prints a report, and tells how to look at the run. Needs NumPy.

    It takes about a second. The run has losses and accuracies, distributions of the weights, images, texts and hyper-parameters.

    Args:
        dir: The folder of all runs.
        epochs: How often the network sees all images.
        seed: What the images and the first weights are drawn by.

    Raises:
        ModuleNotFoundError: NumPy is not installed.
        OSError: The folder of the run cannot be created.
        ValueError: ``epochs`` is less than 1.
    """
    if importlib.util.find_spec("numpy") is None:
        raise ModuleNotFoundError("forebay.demo needs NumPy, which is not installed: pip install numpy", name="numpy")
    if epochs < 1:
        raise ValueError(f"epochs must be 1 or more, got {epochs}")
    import numpy as np

    draw = np.random.default_rng(seed)
    images, digits = _drawn(np, draw, _TRAINING + _TEST)
    network = _Network(np, draw)
    config = {"rate": _RATE, "momentum": _MOMENTUM, "hidden": _HIDDEN, "batch": _BATCH, "epochs": epochs, "seed": seed}
    run = forebay.init(dir, name="demo", config=config)
    calls: list[float] = []
    began = time.perf_counter()
    step = 0
    accuracy = 0.0
    with run:
        run.log({"about": "A network with **one hidden layer** learns drawn digits. Made by `forebay.demo()`."}, step=0)
        for epoch in range(epochs):
            order = draw.permutation(_TRAINING)
            for first in range(0, _TRAINING, _BATCH):
                chosen = order[first : first + _BATCH]
                loss, slope = network.learn(images[chosen], digits[chosen])
                asked = time.perf_counter()
                run.log({"train.loss": loss, "train.gradient_norm": slope}, step=step)
                calls.append(time.perf_counter() - asked)
                step += 1
            guesses = network.scores(images[_TRAINING:]).argmax(axis=1)
            is_wrong = guesses != digits[_TRAINING:]
            accuracy = 1 - float(is_wrong.mean())
            run.log({"test.accuracy": accuracy, "epoch": epoch}, step=step)
            run.log({"weights.first": forebay.Histogram(network.first), "weights.second": forebay.Histogram(network.second)}, step=step)
            # The digits that it gets wrong, or the first ones once it gets all right.
            shown = np.concatenate([np.flatnonzero(is_wrong), np.arange(8)])[:8]
            pictures = images[_TRAINING:][shown].reshape(-1, 1, _SIDE, _SIDE).repeat(4, axis=2).repeat(4, axis=3)
            run.log({"test.mistakes": forebay.Image(pictures, "NCHW")}, step=step)
        run.summary["accuracy"] = accuracy
    report = run.finish()

    seconds = time.perf_counter() - began
    middle = sorted(calls)[len(calls) // 2]
    print(f"accuracy  {100 * accuracy:.1f} % of {_TEST} unseen digits right after {epochs} epochs in {seconds:.1f} s")
    print(f"events    {report.offered:,} offered = {report.processed:,} processed + {report.lost:,} lost + {report.pending:,} pending")
    print(f"run.log   {1e6 * middle:.1f} us a call with two scalars, of {1e6 * seconds / step:,.0f} us a step (median of {len(calls):,})")
    print(f"files     {run.folder}")
    print(f"look      tensorboard --logdir {os.fspath(dir)}")
    return report


def _drawn(np: Any, draw: Any, number: int) -> tuple[Any, Any]:
    """Draws images of digits: each somewhere in its square, brighter or darker, with noise over it."""
    glyphs = np.array([[[(row >> (4 - column)) & 1 for column in range(5)] for row in glyph] for glyph in _GLYPHS], np.float32)
    digits = draw.integers(0, 10, number)
    images = draw.normal(0, 0.2, (number, _SIDE, _SIDE)).astype(np.float32)
    downs, rights = draw.integers(0, _SIDE - 6, number), draw.integers(0, _SIDE - 4, number)
    for image, digit, down, right in zip(images, digits, downs, rights, strict=True):
        image[down : down + 7, right : right + 5] += glyphs[digit] * draw.uniform(0.6, 1.0)
    return images.clip(0, 1).reshape(number, -1), digits


class _Network:
    """Two layers, with tanh between them and softmax at the end; gradient descent with momentum."""

    def __init__(self, np: Any, draw: Any) -> None:
        self.np = np
        inputs = _SIDE * _SIDE
        self.first = draw.normal(0, inputs**-0.5, (inputs, _HIDDEN)).astype(np.float32)
        self.second = draw.normal(0, _HIDDEN**-0.5, (_HIDDEN, 10)).astype(np.float32)
        self._moves = (np.zeros_like(self.first), np.zeros_like(self.second))

    def scores(self, images: Any) -> Any:
        """Returns the score of each digit, for each image."""
        return self.np.tanh(images @ self.first) @ self.second

    def learn(self, images: Any, digits: Any) -> tuple[float, float]:
        """Makes a step, and returns the loss and the length of the gradient."""
        np = self.np
        hidden = np.tanh(images @ self.first)
        scores = hidden @ self.second
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        rows = np.arange(len(digits))
        loss = -float(np.log(odds[rows, digits] + 1e-9).mean())
        odds[rows, digits] -= 1
        odds /= len(digits)
        slopes = images.T @ ((odds @ self.second.T) * (1 - hidden**2)), hidden.T @ odds
        for weights, move, slope in zip((self.first, self.second), self._moves, slopes, strict=True):
            move *= _MOMENTUM
            move += slope
            weights -= _RATE * move
        return loss, float(np.sqrt(sum((slope**2).sum() for slope in slopes)))
