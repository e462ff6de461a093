"""An event bus: handlers are called for events, by name or pattern, on threads and event loops, and the code that emits does not wait.

>>> from forebay.bus import EventBus
>>> bus = EventBus()
>>> @bus.on("training.*")
... async def show(event):
...     print(event.name, event.data)
>>> bus.emit_sync("training.epoch_completed", {"epoch": 5}).handled
training.epoch_completed {'epoch': 5}
1

What is where:

================================================  ==============================================================================
Emit                                              ``EventBus.emit`` (need not be awaited), ``emit_sync``; ``Emission``
Subscribe                                         ``EventBus.subscribe``, ``subscribe_sync``, ``on``, ``unsubscribe``; ``EventSubscriber``
Handlers                                          ``EventHandler``, ``AsyncEventHandler``; batches by ``max_batch``
Events                                            ``Event``, and the standard ones in ``forebay.bus.events``
Filters                                           ``EventBus.add_filter``, ``remove_filter``; ``EventFilter`` and its ``allow``, ``deny``,
                                                  ``min_priority``, ``data``
Priority                                          ``emit(..., priority="critical")``
Correlation                                       ``emit(..., correlation_id=...)``, ``correlate``; ``EventBus.get_correlated_events``
Persistence                                       ``EventBus(enable_persistence=True, persistence_path=..., max_file_size_mb=...)``
Queries                                           ``EventQuery``; ``EventBus.query_events``, and ``query`` without ``await``
Metrics                                           ``EventBus.get_metrics``, and ``metrics`` without ``await``; ``EventMetrics``
Errors                                            ``EventBus.dead_letters``, ``redrive``; logged as ``forebay.bus``; ``HandlerMetrics``
Settings                                          ``EventBus``; ``create_default_event_bus``
The end                                           ``EventBus.flush``, ``stop``, ``await shutdown()``, ``with``, ``async with``
Tests                                             ``forebay.bus.testing.MockEventBus`` and its ``assert_emitted``
Monitoring                                        ``forebay.bus.monitor``: ``RecentEvents``, ``TrainingRun``, ``timed``; and what watches:
                                                  ``error_budget``, ``threshold``, ``aggregate``, ``memory``, ``disk``, ``bottlenecks``
================================================  ==============================================================================
"""

from forebay.bus import events
from forebay.bus._bus import (
    Answer,
    AsyncEventHandler,
    Emission,
    EventBus,
    EventHandler,
    EventSubscriber,
    Subscription,
    correlate,
    create_default_event_bus,
    on,
)
from forebay.bus._event import DeadLetter, Event, EventFilter, EventMetrics, EventQuery, HandlerMetrics, Priority
from forebay.bus.events import StandardEvent

__all__ = [
    "Answer",
    "AsyncEventHandler",
    "DeadLetter",
    "Emission",
    "Event",
    "EventBus",
    "EventFilter",
    "EventHandler",
    "EventMetrics",
    "EventQuery",
    "EventSubscriber",
    "HandlerMetrics",
    "Priority",
    "StandardEvent",
    "Subscription",
    "correlate",
    "create_default_event_bus",
    "events",
    "on",
]
