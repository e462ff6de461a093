"""What tests share."""

from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

import forebay


def all_events(folder):
    """All events of the files of a folder, in order."""
    return [event for path in sorted(Path(folder).glob("events.out.*")) for event in LegacyEventFileLoader(str(path)).Load()]


def events(folder):
    """The events of a folder that have values."""
    return [event for event in all_events(folder) if event.HasField("summary")]


def values(folder):
    """The values in the files of a folder, in order."""
    return [value for event in events(folder) for value in event.summary.value]


def law(report, offered):
    """Checks that so many events were offered, and that their fates add up, in each sink as well."""
    stats = report.stats
    kept_out = stats["filtered"] + stats["sampled_out"] + stats["rate_limited"] + stats["oversize"]
    fates = kept_out + sum(stats["rejected"].values()) + stats["evicted"] + stats["processed"] + stats["pending"]
    assert stats["offered"] == fates == offered, stats
    for sink in stats["sinks"]:
        fates = ("delivered", "dead_lettered", "failed", "evicted", "rejected", "in_flight")
        assert sink["offered"] == sum(sink[fate] for fate in fates), sink


def law_of_run(run, offered):
    """Checks the law for a run that has ended, or that it ends, which was offered so many events beside its heartbeats."""
    report = run.finish()
    law(report, report.offered)
    records = [record.name for record in forebay.read(run.folder)]
    # Those of its earlier generations are in the same file.
    own = records[len(records) - report.offered :]
    assert report.offered - own.count("training.heartbeat") == offered, own
