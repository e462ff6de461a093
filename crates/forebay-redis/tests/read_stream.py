"""Reads a stream by redis-py, and says what is in it: a reader that knows nothing of forebay but docs/redis.md.

    read_stream.py URL STREAM

Fails where an id does not rise, where a number of one producer is there twice, and where a hole is not told of by a gap. Prints a JSON object:
entries, events, evicted, the steps of all events, in their order, and the producers.
"""

import json
import sys

import redis

NAME, PAGE = "forebay.gap", 500


def entries(client, stream):
    """Yields all entries, page by page."""
    begin = "-"
    while page := client.xrange(stream, begin, "+", count=PAGE):
        yield from page
        begin = "(" + page[-1][0].decode()


def main(url, stream):
    client = redis.Redis.from_url(url)
    last_id, found = (-1, -1), {"entries": 0, "events": 0, "evicted": 0, "steps": [], "producers": []}
    # The next number of each producer: of each origin, since a spill hands batches to the next process.
    expected, wrong, seen = {}, [], {}
    for name, fields in entries(client, stream):
        name = name.decode()
        now = tuple(int(part) for part in name.split("-"))
        if now <= last_id:
            wrong.append(f"{name} comes behind {last_id}")
        last_id = now
        fields = {key.decode(): value.decode() for key, value in fields.items()}
        first, count, gap = (int(fields[key]) for key in ("first", "count", "gap"))
        records = [json.loads(line) for line in fields["events"].splitlines()]
        events = [record for record in records if record["name"] != NAME]
        if len(events) != count:
            wrong.append(f"{name} says {count} events, and has {len(events)}")
        found["entries"] += 1
        found["events"] += count
        found["evicted"] += gap
        found["steps"] += [record["step"] for record in events if "step" in record]
        if "redriven" in fields:
            continue
        # A sink that comes later counts from 0, unless it writes what another one has left.
        producer = fields["origin"] if "replayed" in fields else (fields["origin"], fields["writer"])
        known = seen.setdefault(fields["origin"], producer)
        key = fields["origin"] if "replayed" in fields or known == producer else producer
        if key not in expected:
            found["producers"].append(json.loads(fields["origin"])["session_id"])
        next_number = expected.get(key, 0)
        if first - gap < next_number:
            wrong.append(f"{name}: events from {first - gap} on are there twice, expected {next_number}")
        elif first - gap > next_number:
            wrong.append(f"{name}: {first - gap - next_number} events are missing before {first - gap}, and nothing says why")
        expected[key] = first + count
    if wrong:
        print(f"{len(wrong)} are wrong, of which the first: {wrong[:3]}", file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
