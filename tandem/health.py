"""Is a process of the site well? ``python -m tandem.health SITE COMPONENT [NAME]``: exit status 0 if it is.

``tandem render`` leaves in SITE/prometheus.json where each process serves /healthz and /metrics, in the form of
Prometheus' file_sd_configs. So a container's health check reads no configuration and costs a few ms of processor time.
NAME is the worker's, or the rtpengine's; that one has /ping in place of /healthz.
"""

import http.client
import json
import sys
from pathlib import Path

PATIENCE_S = 3.0
WELL = ("ok", "draining")
"""A process that drains is as well as one that takes calls."""


class UnwellError(Exception):
    """The process is not well, or cannot be asked; the message says why."""


def place(site: Path, component: str, name: str = "") -> str:
    """HOST:PORT of a process. Raises UnwellError where the site has none such."""
    try:
        groups = json.loads((site / "prometheus.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnwellError(f"{site / 'prometheus.json'}: {error}") from error
    wanted = [component, name] if name else [component]
    for group in groups:
        if list(group["labels"].values()) == wanted:
            return str(group["targets"][0])
    raise UnwellError(f"{site / 'prometheus.json'} has no {' '.join(wanted)}")


def ask(target: str) -> str:
    """What the process says of itself, one line of JSON. Raises UnwellError."""
    try:
        body = _get(target, "/healthz")
        status = json.loads(body)["status"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise UnwellError(f"{target}: {error}") from error
    if status not in WELL:
        raise UnwellError(f"{target}: {body}")
    return body


def ping(target: str) -> str:
    """``pong`` of an rtpengine. Raises UnwellError."""
    try:
        body = _get(target, "/ping")
    except (OSError, http.client.HTTPException) as error:
        raise UnwellError(f"{target}: {error}") from error
    if body != "pong":
        raise UnwellError(f"{target}: {body}")
    return body


def _get(target: str, path: str) -> str:
    connection = http.client.HTTPConnection(target, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read(65536).decode(errors="replace").strip()
    finally:
        connection.close()


def main() -> int:
    if len(sys.argv) not in (3, 4):
        print("usage: python -m tandem.health SITE COMPONENT [NAME]", file=sys.stderr)
        return 2
    site, *process = sys.argv[1:]
    try:
        print((ping if process[0] == "rtpengine" else ask)(place(Path(site), *process)))
    except UnwellError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
