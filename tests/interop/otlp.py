"""Runs otlp_send.rs, and decodes what it sends by the package `opentelemetry-proto`: once directly, once with gzip, and once through rotel, a
collector that reads all of it and sends it on.

usage: otlp.py OTLP_SEND        (see ./run, which makes all that it needs)
"""

import gzip
import math
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

SECONDS = 60
LOGS = {"answer", "input", "is.done", "order.placed", "large", "metrics.described"}
# Each with its number of points.
METRICS = {"train.loss": 1000, "tokens.total": 1, "train.nan": 1, "weights": 1, "requests": 1, "queue": 1, "latency": 1}


def value_of(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(value) for value in any_value.array_value.values]
    if kind == "kvlist_value":
        return named(any_value.kvlist_value.values)
    return getattr(any_value, kind) if kind else None


def named(pairs):
    keys = [pair.key for pair in pairs]
    assert len(keys) == len(set(keys)), keys
    return {pair.key: value_of(pair.value) for pair in pairs}


class Decoder:
    """A server that decodes what it is sent."""

    def __init__(self):
        self.arrived = queue.Queue()
        self.encodings = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.headers["content-type"] == "application/x-protobuf", self.headers
                encoding = self.headers.get("content-encoding")
                outer.encodings.add(encoding)
                body = gzip.decompress(body) if encoding == "gzip" else body
                request = {"/v1/logs": ExportLogsServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}[self.path]()
                request.ParseFromString(body)
                outer.arrived.put(request)
                answer = ExportLogsServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self):
        """Returns all log records by name, all metrics by name with their points, and the resources, once they have arrived."""
        logs, metrics, resources = {}, {}, []
        while set(logs) < LOGS or {name: len(points) for name, (_, points) in metrics.items()} != METRICS:
            try:
                request = self.arrived.get(timeout=SECONDS)
            except queue.Empty:
                sys.exit(f"not all arrived: {sorted(logs)}, { {name: len(points) for name, (_, points) in metrics.items()} }")
            for resource in getattr(request, "resource_logs", ()):
                resources.append(named(resource.resource.attributes))
                for scope in resource.scope_logs:
                    assert scope.scope.name == "forebay", scope.scope
                    for record in scope.log_records:
                        assert record.event_name not in logs, f"{record.event_name} came twice"
                        logs[record.event_name] = record
            for resource in getattr(request, "resource_metrics", ()):
                resources.append(named(resource.resource.attributes))
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        points = getattr(metric, metric.WhichOneof("data")).data_points
                        metrics.setdefault(metric.name, (metric, []))[1].extend(points)
        return logs, metrics, resources


def check(decoder):
    logs, metrics, resources = decoder.take()
    assert set(logs) == LOGS, sorted(logs)
    for resource in resources:
        assert resource["service.name"] == "interop" and resource["forebay.rank"] == 3, resource
        assert resource["service.instance.id"] == "s-1" and resource["deployment.environment.name"] == "a b", resource
    assert value_of(logs["answer"].body) == "It is a **seven** \x1b[31m\0\U0001F980.", logs["answer"]
    assert value_of(logs["input"].body) == bytes([0, 80, 160, 240]), logs["input"]
    assert value_of(logs["is.done"].body) is True
    assert len(value_of(logs["large"].body)) == 1 << 20
    order = logs["order.placed"]
    attributes = named(order.attributes)
    assert value_of(order.body) == "an order" and attributes["items"] == 3, order
    assert attributes["nested"] == {"list": [1.5, 2.5]} and attributes["forebay.tags"] == ["shop"], attributes
    assert (order.severity_number, order.severity_text) == (13, "WARN"), order
    assert (order.trace_id.hex(), order.span_id.hex()) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"), order
    described = named(logs["metrics.described"].attributes)
    assert described == {"name": "requests", "kind": "counter", "unit": "1", "description": "that came"}, described

    loss, points = metrics["train.loss"]
    assert loss.WhichOneof("data") == "gauge"
    by_step = {named(point.attributes)["forebay.step"]: point.as_double for point in points}
    assert by_step == {step: 1 / (step + 1) for step in range(1000)}
    assert math.isnan(metrics["train.nan"][1][0].as_double)
    for name, value in [("tokens.total", 2**63 - 1), ("requests", 42)]:
        metric, points = metrics[name]
        assert metric.sum.is_monotonic and metric.sum.aggregation_temporality == 2, metric
        assert points[0].as_int == value, points
    requests, points = metrics["requests"]
    assert requests.unit == "1" and named(points[0].attributes) == {"route": "/"}, requests
    assert 0 < points[0].start_time_unix_nano <= points[0].time_unix_nano
    assert metrics["queue"][1][0].as_double == 2.5
    for name, count, total, low, high in [("weights", 4, 0.6, -0.2, 0.4), ("latency", 100, 5050, 1, 100)]:
        metric, (point,) = metrics[name]
        assert metric.histogram.aggregation_temporality == 1, metric
        assert (point.count, sum(point.bucket_counts)) == (count, count), point
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1, point
        assert list(point.explicit_bounds) == sorted(set(point.explicit_bounds)), point
        assert math.isclose(point.sum, total) and (point.min, point.max) == (low, high), point


def send(program, endpoint, **more):
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=a%20b", **more}
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run([program], env={**environment, **variables}, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def through_rotel(program):
    """Sends to rotel, whose exporter sends on to the decoder."""
    import rotel

    agent = os.path.join(os.path.dirname(rotel.__file__), "rotel-agent")
    try:
        subprocess.run([agent, "--version"], capture_output=True, check=True, timeout=SECONDS)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"skipped: rotel does not run here: {error}")
        sys.exit(1 if os.environ.get("FOREBAY_NO_SKIPS") else 0)
    decoder, address, grpc = Decoder(), f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--otlp-http-endpoint", address, "--otlp-grpc-endpoint", grpc, "--exporter", "otlp"]
        arguments += ["--otlp-exporter-endpoint", decoder.url, "--otlp-exporter-protocol", "http"]
        arguments += ["--pid-file", os.path.join(folder, "pid")]
        log = open(os.path.join(folder, "log"), "w+")
        process = subprocess.Popen([agent, "start", *arguments], stdout=log, stderr=log)
        try:
            # It listens a moment later: the retries of the program wait for that.
            print("through rotel:", send(program, f"http://{address}", OTEL_EXPORTER_OTLP_COMPRESSION="gzip"))
            check(decoder)
        except BaseException:
            log.seek(0)
            print(log.read()[-4000:])
            raise
        finally:
            process.terminate()
            process.wait()


def main():
    program = os.path.abspath(sys.argv[1])
    for compression in ["none", "gzip"]:
        decoder = Decoder()
        print(f"compression {compression}:", send(program, decoder.url, OTEL_EXPORTER_OTLP_COMPRESSION=compression))
        check(decoder)
        assert decoder.encodings == {None if compression == "none" else "gzip"}, decoder.encodings
    through_rotel(program)
    print("opentelemetry-proto decodes what we send")


main()
