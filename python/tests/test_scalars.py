"""Scalars, from the loop to the file."""

import math

import numpy as np
from forebay import SummaryWriter
from support import events


def test_a_scalar_is_in_the_file_after_a_close(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("train/loss", 0.5, 3)
    (event,) = events(tmp_path)
    (value,) = event.summary.value
    assert (value.tag, value.simple_value, event.step) == ("train/loss", 0.5, 3)


def test_a_number_that_is_masked_is_nan(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        for step, value in enumerate([np.ma.masked, np.ma.array([5.0], mask=[True]), np.ma.array([5.0], mask=[False])]):
            writer.add_scalar("x", value, step)
    found = [event.summary.value[0].simple_value for event in events(tmp_path)]
    assert math.isnan(found[0]) and math.isnan(found[1]) and found[2] == 5.0


def test_a_moment_before_1970_is_1970(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        for step, walltime in enumerate([-5.5, math.nan, 0.25]):
            writer.add_scalar("x", 1.0, step, walltime)
    assert [event.wall_time for event in events(tmp_path)] == [0.0, 0.0, 0.25]
