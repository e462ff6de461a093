"""Writes one folder with tensorboardX's writer, from fixed inputs and fixed times: `python make.py FOLDER`. Run once by hand; the files are data.

Needs tensorboardX and NumPy.
"""

import sys

import numpy as np
from tensorboardX import SummaryWriter

T = 1_700_000_000.25
IMAGE = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)

with SummaryWriter(sys.argv[1]) as writer:
    for step, value in enumerate([0.5, -1.0, float("nan"), float("inf")]):
        writer.add_scalar("train/loss", value, step, walltime=T + step)
    writer.add_scalar("shown", 1.5, -1, walltime=T, display_name="Shown", summary_description="**what** it is")
    writer.add_histogram("weights", np.array([0.5, 1.5, 1.5, 9.0]), 3, bins=[0, 1, 2, 10], walltime=T)
    writer.add_text("note", "hello **world**", 4, walltime=T)
    writer.add_image("picture", IMAGE, 5, walltime=T, dataformats="HWC")
    writer.add_hparams({"lr": 0.1, "opt": "sgd", "amp": True}, {"acc": 0.75}, name="trial", global_step=6)
