"""A training script in an environment that has nothing but the package. Run by `.ci/python`."""

import subprocess
import sys
import tempfile
from pathlib import Path

from forebay import SummaryWriter

with tempfile.TemporaryDirectory() as folder:
    with SummaryWriter(folder) as writer:
        for step in range(100):
            writer.add_scalar("train/loss", 1 / (step + 1), step)
    (file,) = Path(folder).iterdir()
    assert file.stat().st_size > 100 * 20, file.stat().st_size

# What needs more says so.
done = subprocess.run([sys.executable, "-m", "forebay", "demo"], capture_output=True, text=True, check=False)
assert (done.returncode, done.stderr) == (1, "error: forebay.demo needs NumPy, which is not installed: pip install numpy\n"), done

# What is large is imported where it is used, if it is there.
for module in ("numpy", "torch", "PIL", "matplotlib", "tensorboard", "multiprocessing.util"):
    assert module not in sys.modules, f"{module} was imported"
assert not [name for name in sys.modules if name.startswith("numpy")]
