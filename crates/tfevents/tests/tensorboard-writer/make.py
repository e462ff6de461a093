"""Writes a file with TensorBoard's own writer: `python make.py FOLDER`. Run once by hand; the file is data.

It has the values of `../tensorboardx-writer`, each in the form that TensorBoard makes of it when it reads it: a tensor. Needs TensorBoard.
"""

import glob
import os
import sys

from tensorboard import data_compat
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.summary.writer.event_file_writer import EventFileWriter

(path,) = glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tensorboardx-writer/events.out.*"))
writer = EventFileWriter(sys.argv[1])
for event in list(LegacyEventFileLoader(path).Load())[1:]:
    for value in event.summary.value:
        value.CopyFrom(data_compat.migrate_value(value))
    writer.add_event(event)
writer.close()
