"""A `DataLoader` of two workers that log. `test_dataloader.py` runs it with METHOD, HOLDER and FOLDER in the environment.

The holders: `global`, made where the script is imported, so that a spawned worker makes its own; `dataset`, an attribute of the dataset,
which a spawned worker gets as a copy; `reopen`, the same with `in_child="reopen"`; `worker`, made in each worker by `worker_init_fn`;
`run`, by `forebay.log`.
"""

import json
import multiprocessing
import os
import time

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

import forebay
from forebay import SummaryWriter

# Not arguments: a server of forks that imports this script has none.
METHOD, HOLDER, FOLDER = (os.environ[name] for name in ("METHOD", "HOLDER", "FOLDER"))
ITEMS = 64

HELD = SummaryWriter(FOLDER) if HOLDER == "global" else None
OWN = None


class Items(Dataset):
    def __init__(self, writer):
        self.writer = writer

    def __len__(self):
        return ITEMS

    def __getitem__(self, index):
        if HOLDER == "run":
            forebay.log({"item": float(index)}, step=index)
            run = forebay._run._current
            ignored = forebay._run._ignored if run is None else run.collector.stats().stats["rejected"]["forked"]
        else:
            writer = HELD or OWN or self.writer
            writer.add_scalar("item", index, index)
            if index % 16 == 0:
                writer.add_histogram("tensor", torch.arange(4.0), index)
                writer.flush()
            ignored = writer.stats().get("ignored", 0)
        return torch.tensor([index, get_worker_info().id, ignored])


def begin(worker):
    global OWN
    if HOLDER == "worker":
        OWN = SummaryWriter(os.path.join(FOLDER, f"worker_{worker}"))


def main():
    if METHOD == "forkserver":
        # Its server imports PyTorch once, and not each worker, which takes minutes on a machine that is busy.
        multiprocessing.set_forkserver_preload(["torch", "__main__"])
    run = forebay.init(FOLDER) if HOLDER == "run" else None
    in_child = "reopen" if HOLDER == "reopen" else "ignore"
    writer = HELD if HOLDER in ("global", "run", "worker") else SummaryWriter(FOLDER, in_child=in_child)
    loader = DataLoader(
        Items(None if HOLDER in ("global", "run") else writer),
        batch_size=8, num_workers=2, multiprocessing_context=METHOD, worker_init_fn=begin,
    )  # fmt: skip
    rows, began = [], time.monotonic()
    for epoch in range(2):
        for number, batch in enumerate(loader):
            rows += batch.tolist()
            if run is not None:
                forebay.log({"batch": float(number)}, step=epoch * 8 + number)
            elif writer is not None:
                writer.add_scalar("batch", number, epoch * 8 + number)
    if run is not None:
        run.finish()
    elif writer is not None:
        writer.close()
    most = {}
    for index, worker, ignored in rows:
        most[worker] = max(most.get(worker, 0), ignored)
    print(json.dumps({"items": len(rows), "ignored": most, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
