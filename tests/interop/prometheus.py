"""Prometheus scrapes the example axum_service, promtool checks what it gets, and the service ends when it is asked to.

usage: prometheus.py SERVICE PROMETHEUS PROMTOOL        (see .ci/service, which has all three)
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECONDS = 60


class TakesAll(BaseHTTPRequestHandler):
    """A collector of OpenTelemetry that reads nothing."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def get(url):
    # Of this machine: no proxy stands before it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=SECONDS) as answer:
        return answer.read().decode()


def until(what, holds):
    begun = time.monotonic()
    while True:
        try:
            if found := holds():
                return found
        except (urllib.error.URLError, ConnectionError):
            pass
        if time.monotonic() - begun > SECONDS:
            sys.exit(f"never happened: {what}")
        time.sleep(0.05)


def main():
    service, prometheus, promtool = sys.argv[1:]
    collector = ThreadingHTTPServer(("127.0.0.1", 0), TakesAll)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server_port}"
    running = subprocess.Popen([service, "127.0.0.1:0"], env=environment, stdout=subprocess.PIPE, text=True)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        try:
            url = running.stdout.readline().strip()
            for name in ["one", "two", "three"]:
                assert get(f"{url}/hello/{name}") == f"hello {name}"
            text = get(f"{url}/metrics")
            checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=SECONDS)
            assert checked.returncode == 0 and not checked.stderr, checked.stdout + checked.stderr

            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            target = urllib.parse.urlparse(url).netloc
            config = os.path.join(folder, "prometheus.yml")
            scrape = f"scrape_configs: [{{job_name: forebay, scrape_interval: 1s, static_configs: [{{targets: ['{target}']}}]}}]\n"
            with open(config, "w") as file:
                file.write(scrape)
            subprocess.run([promtool, "check", "config", config], check=True, capture_output=True, timeout=SECONDS)
            arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
            with open(os.path.join(folder, "log"), "w") as log:
                scraping = subprocess.Popen([prometheus, *arguments], env=environment, stdout=log, stderr=log)
            try:

                def query(expression):
                    answer = json.loads(get(f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"))
                    return [float(series["value"][1]) for series in answer["data"]["result"]]

                # Three greetings, whenever the worker delivers them.
                until("Prometheus has the counter", lambda: query('forebay_events_total{fate="processed"} >= 3'))
                assert query("up") == [1.0]
                assert query('forebay_sink_events_total{sink="otlp",fate="failed"}') == [0.0]
                lines = [line for line in text.splitlines() if line and not line.startswith("#")]
                scraped = query('count({__name__=~"forebay_.*"})')
                assert scraped == [len(lines)], (scraped, len(lines))
            finally:
                scraping.terminate()
                scraping.wait()
        finally:
            running.send_signal(signal.SIGTERM)
            rest = running.communicate(timeout=SECONDS)[0]
    assert running.returncode == 0 and 'name: "otlp"' in rest, rest
    print(f"promtool accepts {len(lines)} samples, and Prometheus has scraped them")


main()
