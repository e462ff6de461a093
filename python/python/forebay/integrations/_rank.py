"""Which of the processes that train together this one is."""

from __future__ import annotations

import json
import os
import sys

from forebay._forebay import environment_rank


def joined() -> tuple[int, int] | None:
    """Returns the rank of this process and the number of all, where PyTorch or JAX has joined them; else ``None``."""
    # Neither is imported here: who has joined processes by one has imported it.
    torch, jax = sys.modules.get("torch.distributed"), sys.modules.get("jax")
    try:
        if torch is not None and torch.is_available() and torch.is_initialized():
            return int(torch.get_rank()), int(torch.get_world_size())
        if jax is not None and jax.distributed.is_initialized():
            return int(jax.process_index()), int(jax.process_count())
    except Exception:  # noqa: BLE001 - an older one has other names, and tells nothing
        pass
    return None


def of_environment() -> tuple[int, int] | None:
    """Returns the rank of this process and the number of all, as the environment tells them; else ``None``."""
    return _of_tf_config(os.environ.get("TF_CONFIG", "")) or _of_launcher()


def is_first() -> bool:
    """Returns whether this is the first of the processes that train together, or alone."""
    place = joined() or of_environment()
    return place is None or place[0] == 0


def of_first() -> tuple[int, int | None, int]:
    """Returns what the run of the first process says of its rank: its number, its number on its machine, and the number of all."""
    place = joined() or of_environment()
    size = max(place[1], 1) if place is not None else 1
    try:
        rank, local_rank, all_of_them = environment_rank()
    except ValueError:
        return 0, None, size
    return 0, local_rank if rank == 0 else None, max(size, all_of_them)


def is_worker() -> bool:
    """Returns whether this is a worker of PyTorch's ``DataLoader``, which trains nothing."""
    data = sys.modules.get("torch.utils.data")
    try:
        return data is not None and data.get_worker_info() is not None
    except Exception:  # noqa: BLE001 - it may just be being imported
        return False


def _of_tf_config(text: str) -> tuple[int, int] | None:
    """Returns what the variable of TensorFlow says. The first is the chief, and without a chief the first worker."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        sizes = {kind: len(cluster.get(kind, ())) for kind in ("chief", "master", "worker")}
        before = {"chief": 0, "master": 0, "worker": sizes["chief"] + sizes["master"]}
        # Servers of parameters and those who evaluate are none of them. Of another type, nothing is known.
        rank = -1 if task["type"] in ("ps", "evaluator") else before[task["type"]] + int(task["index"])
        return rank, sum(sizes.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _of_launcher() -> tuple[int, int] | None:
    """Returns what a launcher such as torchrun says. What is no number says nothing."""
    rank, local, size = (_number(os.environ.get(name, "")) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    # Some tell the number on the machine alone: only that of a first process is 0.
    found = local if rank is None else rank
    return None if found is None else (found, max(size or 1, found + 1))


def _number(text: str) -> int | None:
    """Returns the number that a text is, or ``None``."""
    try:
        return max(int(text), 0)
    except ValueError:
        return None
