"""What tests share."""

from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader


def all_events(folder):
    """All events of the files of a folder, in order."""
    return [event for path in sorted(Path(folder).glob("events.out.*")) for event in LegacyEventFileLoader(str(path)).Load()]


def events(folder):
    """The events of a folder that have values."""
    return [event for event in all_events(folder) if event.HasField("summary")]


def values(folder):
    """The values in the files of a folder, in order."""
    return [value for event in events(folder) for value in event.summary.value]
