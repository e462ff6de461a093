"""Writes the files beside it, with the real wandb in offline mode: python make.py FOLDER"""

import math
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import wandb

FOLDER = Path(sys.argv[1])


def train(name: str, lr: float, fails: bool) -> None:
    settings = wandb.Settings(
        host="machine", console="off", disable_git=True, save_code=False, x_disable_meta=True, x_stats_sampling_interval=0.5,
        program="train.py", program_relpath="train.py", program_abspath="train.py", root_dir=str(FOLDER / name), username="user",
    )  # fmt: skip
    config = {"lr": lr, "layers": [64, 32], "optimizer": {"name": "adam", "betas": [0.9, 0.999]}, "amp": True, "note": "größer"}
    run = wandb.init(project="digits", name=name, id=name, mode="offline", config=config, settings=settings)
    for step in range(60):
        row = {"train/loss": math.exp(-step * lr), "epoch": step // 10, "train/lr": lr}
        if step == 45:
            row["train/loss"] = math.nan
        if step % 20 == 0:
            row["weights"] = wandb.Histogram(np.linspace(-1, 1, 100) * (1 + step / 60), num_bins=8)
            row["nested"] = {"inner": {"value": step / 2}}
        run.log(row)
    # What comes later, at a step of its own, and a long text, which takes more than a block of the file.
    run.log({"eval/accuracy": 0.97, "text": "x" * 40_000}, step=100)
    run.config.update({"lr_at_end": lr / 10})
    run.summary["best_accuracy"] = 0.98
    time.sleep(1.5)
    run.finish(exit_code=3 if fails else 0)


train("finished", 0.02, fails=False)
train("failed", 0.5, fails=True)
# Its service writes the rest.
wandb.teardown()
for name in ["finished", "failed"]:
    (file,) = (FOLDER / name).rglob("*.wandb")
    shutil.copy(file, Path(__file__).with_name(f"{name}.wandb"))
