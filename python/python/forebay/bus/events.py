"""Standard events: their names, their data, their priorities.

``bus.emit(events.training.epoch_started(epoch=1, total_epochs=10))`` emits one. Every name is a constant as well
(``events.training.EPOCH_STARTED``), to subscribe by. What is ``None`` is left out; more data is added by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["StandardEvent", "data", "metrics", "model", "plugin", "system", "training"]


@dataclass(frozen=True, slots=True)
class StandardEvent:
    """A standard event, to be emitted."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    priority: Literal["critical", "normal", "low"] = "normal"


def _event(name: str, priority: Literal["critical", "normal", "low"], data: dict[str, Any]) -> StandardEvent:
    """Makes an event of arguments, without those that are ``None``."""
    data.update(data.pop("more"))
    return StandardEvent(name, {key: value for key, value in data.items() if value is not None}, priority)


class training:
    """Events of a training run."""

    STARTED = "training.started"
    EPOCH_STARTED = "training.epoch_started"
    BATCH_COMPLETED = "training.batch_completed"
    EPOCH_COMPLETED = "training.epoch_completed"
    COMPLETED = "training.completed"
    FAILED = "training.failed"
    NEW_BEST_MODEL = "training.new_best_model"
    EARLY_STOPPED = "training.early_stopped"

    @staticmethod
    def started(run_id: str, config: Any = None, model_type: str | None = None, **more: Any) -> StandardEvent:
        """A run begins."""
        said = {"run_id": run_id, "config": config, "model_type": model_type, "more": more}
        return _event("training.started", "critical", said)

    @staticmethod
    def epoch_started(epoch: int, total_epochs: int, **more: Any) -> StandardEvent:
        """An epoch begins."""
        return _event("training.epoch_started", "normal", {"epoch": epoch, "total_epochs": total_epochs, "more": more})

    @staticmethod
    def batch_completed(
        batch: int,
        loss: float,
        metrics: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> StandardEvent:
        """A batch is done."""
        said = {"batch": batch, "loss": loss, "metrics": metrics, "more": more}
        return _event("training.batch_completed", "low", said)

    @staticmethod
    def epoch_completed(
        epoch: int,
        metrics: Mapping[str, Any] | None = None,
        duration: float | None = None,
        **more: Any,
    ) -> StandardEvent:
        """An epoch is done; ``duration`` in seconds."""
        said = {"epoch": epoch, "metrics": metrics, "duration": duration, "more": more}
        return _event("training.epoch_completed", "normal", said)

    @staticmethod
    def completed(
        final_metrics: Mapping[str, Any] | None = None,
        total_duration: float | None = None,
        **more: Any,
    ) -> StandardEvent:
        """A run has ended well; ``total_duration`` in seconds."""
        said = {"final_metrics": final_metrics, "total_duration": total_duration, "more": more}
        return _event("training.completed", "critical", said)

    @staticmethod
    def failed(error: str, traceback: str | None = None, epoch: int | None = None, **more: Any) -> StandardEvent:
        """A run has failed."""
        said = {"error": error, "traceback": traceback, "epoch": epoch, "more": more}
        return _event("training.failed", "critical", said)

    @staticmethod
    def new_best_model(epoch: int, loss: float, **more: Any) -> StandardEvent:
        """A model is better than all before."""
        return _event("training.new_best_model", "normal", {"epoch": epoch, "loss": loss, "more": more})

    @staticmethod
    def early_stopped(epoch: int, reason: str, **more: Any) -> StandardEvent:
        """A run ends early."""
        return _event("training.early_stopped", "critical", {"epoch": epoch, "reason": reason, "more": more})


class model:
    """Events of a model."""

    FORWARD_PASS = "model.forward_pass"
    BACKWARD_PASS = "model.backward_pass"
    CHECKPOINT_SAVED = "model.checkpoint_saved"
    CHECKPOINT_LOADED = "model.checkpoint_loaded"

    @staticmethod
    def forward_pass(input_shape: Sequence[int], output_shape: Sequence[int], **more: Any) -> StandardEvent:
        """A forward pass is done."""
        said = {"input_shape": input_shape, "output_shape": output_shape, "more": more}
        return _event("model.forward_pass", "low", said)

    @staticmethod
    def backward_pass(gradients: Mapping[str, float], loss: float, **more: Any) -> StandardEvent:
        """A backward pass is done; ``gradients`` are norms, not tensors."""
        return _event("model.backward_pass", "low", {"gradients": gradients, "loss": loss, "more": more})

    @staticmethod
    def checkpoint_saved(
        path: Any,
        epoch: int,
        metrics: Mapping[str, Any] | None = None,
        size_mb: float | None = None,
        **more: Any,
    ) -> StandardEvent:
        """A checkpoint is written."""
        said = {"path": path, "epoch": epoch, "metrics": metrics, "size_mb": size_mb, "more": more}
        return _event("model.checkpoint_saved", "normal", said)

    @staticmethod
    def checkpoint_loaded(path: Any, restored_epoch: int, **more: Any) -> StandardEvent:
        """A checkpoint is read."""
        said = {"path": path, "restored_epoch": restored_epoch, "more": more}
        return _event("model.checkpoint_loaded", "normal", said)


class data:
    """Events of data, from its preparation to its batches."""

    BATCH_LOADED = "data.batch_loaded"
    PREPROCESSING_STARTED = "data.preprocessing_started"
    PREPROCESSING_COMPLETED = "data.preprocessing_completed"
    CACHE_HIT = "data.cache_hit"
    CACHE_MISS = "data.cache_miss"
    VALIDATION_STARTED = "data.validation_started"
    VALIDATION_COMPLETED = "data.validation_completed"
    SCHEMA_MISMATCH = "data.schema_mismatch"
    PERFORMANCE_WARNING = "data.performance_warning"

    @staticmethod
    def batch_loaded(
        batch_size: int,
        load_time: float,
        sequence_length: int | None = None,
        memory_usage: float | None = None,
        **more: Any,
    ) -> StandardEvent:
        """A batch is loaded; ``load_time`` in seconds."""
        said = {
            "batch_size": batch_size,
            "load_time": load_time,
            "sequence_length": sequence_length,
            "memory_usage": memory_usage,
            "more": more,
        }
        return _event("data.batch_loaded", "low", said)

    @staticmethod
    def preprocessing_started(dataset_size: int, **more: Any) -> StandardEvent:
        """Preprocessing begins."""
        return _event("data.preprocessing_started", "normal", {"dataset_size": dataset_size, "more": more})

    @staticmethod
    def preprocessing_completed(processed_samples: int, duration: float, **more: Any) -> StandardEvent:
        """Preprocessing is done; ``duration`` in seconds."""
        said = {"processed_samples": processed_samples, "duration": duration, "more": more}
        return _event("data.preprocessing_completed", "normal", said)

    @staticmethod
    def cache_hit(cache_key: str, size_mb: float, **more: Any) -> StandardEvent:
        """Something was in a cache."""
        return _event("data.cache_hit", "low", {"cache_key": cache_key, "size_mb": size_mb, "more": more})

    @staticmethod
    def cache_miss(cache_key: str, reason: str, **more: Any) -> StandardEvent:
        """Something was not in a cache."""
        return _event("data.cache_miss", "low", {"cache_key": cache_key, "reason": reason, "more": more})

    @staticmethod
    def validation_started(validation_type: str, **more: Any) -> StandardEvent:
        """A validation begins."""
        return _event("data.validation_started", "normal", {"validation_type": validation_type, "more": more})

    @staticmethod
    def validation_completed(passed: bool, issues: Sequence[str] = (), **more: Any) -> StandardEvent:
        """A validation is done."""
        return _event("data.validation_completed", "normal", {"passed": passed, "issues": issues, "more": more})

    @staticmethod
    def schema_mismatch(expected: Any, actual: Any, **more: Any) -> StandardEvent:
        """Data has another form than was expected."""
        return _event("data.schema_mismatch", "normal", {"expected": expected, "actual": actual, "more": more})

    @staticmethod
    def performance_warning(component: str, metric: str, value: float, threshold: float, **more: Any) -> StandardEvent:
        """Something of the data pipeline crosses its threshold."""
        said = {"component": component, "metric": metric, "value": value, "threshold": threshold, "more": more}
        return _event("data.performance_warning", "normal", said)


class plugin:
    """Events of plugins."""

    LOADED = "plugin.loaded"
    INITIALIZED = "plugin.initialized"
    ACTIVATED = "plugin.activated"
    DEACTIVATED = "plugin.deactivated"
    ERROR = "plugin.error"
    MESSAGE = "plugin.message"
    STATE_CHANGED = "plugin.state_changed"

    @staticmethod
    def loaded(plugin_name: str, version: str, **more: Any) -> StandardEvent:
        """A plugin is loaded."""
        return _event("plugin.loaded", "normal", {"plugin_name": plugin_name, "version": version, "more": more})

    @staticmethod
    def initialized(plugin_name: str, config: Any = None, **more: Any) -> StandardEvent:
        """A plugin is initialised."""
        return _event("plugin.initialized", "normal", {"plugin_name": plugin_name, "config": config, "more": more})

    @staticmethod
    def activated(
        plugin_name: str,
        version: str | None = None,
        capabilities: Sequence[str] | None = None,
        **more: Any,
    ) -> StandardEvent:
        """A plugin is active."""
        said = {"plugin_name": plugin_name, "version": version, "capabilities": capabilities, "more": more}
        return _event("plugin.activated", "normal", said)

    @staticmethod
    def deactivated(plugin_name: str, **more: Any) -> StandardEvent:
        """A plugin is not active any more."""
        return _event("plugin.deactivated", "normal", {"plugin_name": plugin_name, "more": more})

    @staticmethod
    def error(plugin_name: str, error: str, **more: Any) -> StandardEvent:
        """A plugin has failed."""
        return _event("plugin.error", "normal", {"plugin_name": plugin_name, "error": error, "more": more})

    @staticmethod
    def message(sender: str, to: str, message: Any, **more: Any) -> StandardEvent:
        """A plugin tells another one something."""
        return _event("plugin.message", "normal", {"from": sender, "to": to, "message": message, "more": more})

    @staticmethod
    def state_changed(plugin_name: str, old_state: str, new_state: str, **more: Any) -> StandardEvent:
        """A plugin has another state."""
        said = {"plugin_name": plugin_name, "old_state": old_state, "new_state": new_state, "more": more}
        return _event("plugin.state_changed", "normal", said)


class system:
    """Events of the machine."""

    MEMORY_USAGE = "system.memory_usage"
    GPU_USAGE = "system.gpu_usage"
    DISK_USAGE = "system.disk_usage"
    PERFORMANCE_WARNING = "system.performance_warning"
    BOTTLENECK_DETECTED = "system.bottleneck_detected"
    ERROR_THRESHOLD_EXCEEDED = "system.error_threshold_exceeded"

    @staticmethod
    def memory_usage(used_mb: float, available_mb: float, percentage: float, **more: Any) -> StandardEvent:
        """How much memory is used."""
        said = {"used_mb": used_mb, "available_mb": available_mb, "percentage": percentage, "more": more}
        return _event("system.memory_usage", "low", said)

    @staticmethod
    def gpu_usage(utilization: float, memory_used: float, temperature: float, **more: Any) -> StandardEvent:
        """How a GPU is used."""
        said = {"utilization": utilization, "memory_used": memory_used, "temperature": temperature, "more": more}
        return _event("system.gpu_usage", "low", said)

    @staticmethod
    def disk_usage(used_gb: float, available_gb: float, **more: Any) -> StandardEvent:
        """How a disk is used."""
        return _event("system.disk_usage", "low", {"used_gb": used_gb, "available_gb": available_gb, "more": more})

    @staticmethod
    def performance_warning(component: str, metric: str, value: float, threshold: float, **more: Any) -> StandardEvent:
        """Something crosses its threshold."""
        said = {"component": component, "metric": metric, "value": value, "threshold": threshold, "more": more}
        return _event("system.performance_warning", "normal", said)

    @staticmethod
    def bottleneck_detected(
        component: str,
        description: str,
        suggestions: Sequence[str] = (),
        **more: Any,
    ) -> StandardEvent:
        """Something holds up all else."""
        said = {"component": component, "description": description, "suggestions": suggestions, "more": more}
        return _event("system.bottleneck_detected", "normal", said)

    @staticmethod
    def error_threshold_exceeded(error_count: int, threshold: int, component: str, **more: Any) -> StandardEvent:
        """There are too many errors."""
        said = {"error_count": error_count, "threshold": threshold, "component": component, "more": more}
        return _event("system.error_threshold_exceeded", "normal", said)


class metrics:
    """Events of numbers."""

    AGGREGATED = "metrics.aggregated"

    @staticmethod
    def aggregated(
        training_events_count: int,
        system_events_count: int,
        events_per_second: float,
        timestamp: Any,
        **more: Any,
    ) -> StandardEvent:
        """What the last events come to."""
        said = {
            "training_events_count": training_events_count,
            "system_events_count": system_events_count,
            "events_per_second": events_per_second,
            "timestamp": timestamp,
            "more": more,
        }
        return _event("metrics.aggregated", "normal", said)
