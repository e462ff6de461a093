"""Scalars, from the loop to the file."""

from forebay import SummaryWriter
from support import events


def test_a_scalar_is_in_the_file_after_a_close(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("train/loss", 0.5, 3)
    (event,) = events(tmp_path)
    (value,) = event.summary.value
    assert (value.tag, value.simple_value, event.step) == ("train/loss", 0.5, 3)
