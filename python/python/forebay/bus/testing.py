"""For the tests of programs that emit events: a bus that remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from forebay._forebay import matches
from forebay.bus._bus import Emission, EventBus
from forebay.bus.events import StandardEvent

__all__ = ["MockEventBus"]


class MockEventBus(EventBus):
    """A bus that remembers what is emitted, in order, and still calls the handlers that are subscribed.

    ``emitted_events`` has a dict for each event: its ``name``, its ``data``, and what else was said of it, by the names of the arguments of
    ``emit``. Events that a filter does not let in, and those in a forked child, are remembered as well.
    """

    def __init__(self, **settings: Any) -> None:
        self.emitted_events: list[dict[str, Any]] = []
        super().__init__(**settings)

    def emit(self, event_name: str | StandardEvent, data: Mapping[str, Any] | None = None, **options: Any) -> Emission:
        """Emits an event, and remembers it."""
        emission = super().emit(event_name, data, **options)
        self._remember(event_name, data, options)
        return emission

    def emit_sync(self, event_name: str | StandardEvent, data: Mapping[str, Any] | None = None, **options: Any) -> Emission:
        """Emits an event, waits for its handlers, and remembers it before."""
        self._remember(event_name, data, {key: value for key, value in options.items() if key != "timeout"})
        return super().emit_sync(event_name, data, **options)

    def _remember(self, event_name: str | StandardEvent, data: Mapping[str, Any] | None, options: dict[str, Any]) -> None:
        """Notes an event that was emitted."""
        if isinstance(event_name, StandardEvent):
            options = {"priority": event_name.priority, **options}
            data = {**event_name.data, **(data or {})}
            event_name = event_name.name
        self.emitted_events.append({"name": event_name, "data": dict(data or {}), **options})

    def emitted(self, pattern: str = "*") -> list[dict[str, Any]]:
        """Returns what was emitted of a name or pattern, in order."""
        return [event for event in self.emitted_events if matches(pattern, event["name"])]

    def assert_emitted(
        self,
        pattern: str,
        data: Mapping[str, Any] | None = None,
        *,
        times: int | None = None,
        where: Callable[[dict[str, Any]], bool] | None = None,
    ) -> list[dict[str, Any]]:
        """Asserts that events of a name or pattern were emitted, and returns them.

        Args:
            pattern: Their name or pattern.
            data: What their data has to have.
            times: How many they have to be. Defaults to any number but 0.
            where: What else has to be true of each.

        Raises:
            AssertionError: The message tells what was emitted.
        """
        found = [
            event
            for event in self.emitted(pattern)
            if all(key in event["data"] and event["data"][key] == value for key, value in (data or {}).items())
            and (where is None or where(event))
        ]
        if (not found) if times is None else len(found) != times:
            wanted = "any" if times is None else str(times)
            names = ", ".join(event["name"] for event in self.emitted_events[-20:]) or "nothing"
            raise AssertionError(f"{pattern!r} was emitted {len(found)} times as wanted, not {wanted}; emitted (the last 20): {names}")
        return found

    def assert_not_emitted(self, pattern: str) -> None:
        """Asserts that no event of a name or pattern was emitted."""
        self.assert_emitted(pattern, times=0)

    def clear(self) -> None:
        """Forgets what was emitted."""
        self.emitted_events.clear()
