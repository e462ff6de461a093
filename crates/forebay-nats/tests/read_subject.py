"""Reads a subject by nats-py, and says as JSON what is there: `read_subject.py URL SUBJECT`.

An independent reader: it has nothing of the Rust code, and counts what must not be: ids that are there twice, events that are there
twice, and numbers that are missing although no gap tells of them.
"""

import asyncio
import json
import sys

import nats


async def read(url, subject):
    client = await nats.connect(url)
    subscription = await client.jetstream().subscribe(subject, ordered_consumer=True)
    found = {"messages": 0, "events": 0, "doubles": 0, "holes": 0, "writers": 0, "steps": []}
    ids, expected = set(), {}
    while True:
        try:
            message = await subscription.next_msg(timeout=5)
        except nats.errors.TimeoutError:
            break
        headers = message.headers
        first, count, gap = (int(headers[name]) for name in ("first", "count", "gap"))
        events = [json.loads(line) for line in message.data.splitlines()]
        events = [event for event in events if event["name"] != "forebay.gap"]
        assert len(events) == count, f"{len(events)} events, and not {count}"
        found["messages"] += 1
        found["events"] += count
        found["steps"] += [event["step"] for event in events]
        found["doubles"] += headers["Nats-Msg-Id"] in ids
        ids.add(headers["Nats-Msg-Id"])
        assert headers["Nats-Msg-Id"].startswith(headers["writer"] + "/")
        if "redriven" not in headers:
            next_one = expected.get(headers["writer"], 0)
            found["holes"] += max(0, first - gap - next_one)
            found["doubles"] += max(0, next_one - (first - gap))
            expected[headers["writer"]] = first + count
        if message.metadata.num_pending == 0:
            break
    found["writers"] = len(expected)
    await client.close()
    return found


print(json.dumps(asyncio.run(read(*sys.argv[1:]))))
