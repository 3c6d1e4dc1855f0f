"""The Neuron exporter on loopback: its own text, over HTTP, as prometheus_client serves it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

NODE = {
    "availability_zone": "us-east-2b",
    "instance_id": "i-0823d657f57057590",
    "instance_name": "",
    "instance_type": "trn2.48xlarge",
    "region": "us-east-2",
    "subnet_id": "subnet-dd4589b6",
}
KINDS = ("generic", "numerical", "transient", "model", "runtime", "hardware")
ECC = ("mem_ecc_corrected", "mem_ecc_uncorrected", "sram_ecc_corrected", "sram_ecc_uncorrected")


def line(name: str, value: float, **labels: Any) -> str:
    inside = ",".join(f'{key}="{each}"' for key, each in sorted({**NODE, **labels}.items()))
    return f"{name}{{{inside}}} {value}"


def idle() -> list[str]:
    """What an idle node's exporter says: prometheus_client's own metrics and the hardware."""
    return [
        "# HELP python_info Python platform information",
        "# TYPE python_info gauge",
        'python_info{implementation="CPython",major="3",minor="10",patchlevel="12",version="3.10.12"} 1.0',
        "# TYPE process_cpu_seconds_total counter",
        "process_cpu_seconds_total 4.2",
        "# HELP neuron_hardware_info Neuron Hardware Information",
        "# TYPE neuron_hardware_info gauge",
        line("neuron_hardware_info", 1.0, neuron_device_count="2", neuroncore_per_device_count="4"),
    ]


def scrape(*, vcpu: float = 0.1, ecc: dict[tuple[int, str], float] | None = None, **errors: float) -> str:
    """A node that serves, in the words of SDK 2.32's exporter."""
    counted = {(device, kind): 0.0 for device in (0, 1) for kind in ECC} | (ecc or {})
    tag = {"runtime_tag": "canary"}
    return "\n".join(
        [
            *idle(),
            "# TYPE neuroncore_utilization_ratio gauge",
            *(line("neuroncore_utilization_ratio", 0.4, neuroncore=core, **tag) for core in range(8)),
            line("neuron_runtime_memory_used_bytes", 1e9, memory_location="host", **tag),
            line("neuron_runtime_memory_used_bytes", 1.2e10, memory_location="neuron_device", **tag),
            *(
                line("execution_errors_total", errors.get(kind, 0.0), error_type=kind, **tag)
                for kind in KINDS
            ),
            line("execution_errors_created", 1.7e9, error_type="hardware", **tag),
            line("execution_status_total", 1e6, status_type="completed", **tag),
            line("execution_status_total", errors.get("timed_out", 0.0), status_type="timed_out", **tag),
            "# TYPE hardware_ecc_events_total counter",
            *(
                line("hardware_ecc_events_total", value, event_type=kind, neuron_device_index=device)
                for (device, kind), value in counted.items()
            ),
            line("system_vcpu_usage_ratio", vcpu, usage_type="user"),
            "",
        ]
    )


@dataclass
class Exporter:
    """bodies: what it says, one a scrape; then it is busy on, and well. None: the connection is cut."""

    bodies: list[str | None] = field(default_factory=list)
    url: str = ""
    scrapes: int = 0
    numbers: Iterator[int] = field(default_factory=count)

    def body(self) -> str | None:
        self.scrapes += 1
        # A live node's processors are never used the same twice.
        return self.bodies.pop(0) if self.bodies else scrape(vcpu=0.1 + next(self.numbers) / 1000)


@contextmanager
def exporter(*bodies: str | None, path: str = "/metrics") -> Iterator[Exporter]:
    found = Exporter(list(bodies))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = found.body() if self.path.endswith(path) else ""
            if body is None:
                self.connection.close()
                return
            raw = body.encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}/metrics"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
