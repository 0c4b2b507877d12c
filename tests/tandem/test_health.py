"""tandem.health: finds a process of a rendered site, and believes what it says of itself."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.site import Site
from tandem import settings as tandem_settings
from tandem.health import UnwellError, ask, place
from tandem.render import render


@pytest.fixture
def process() -> Iterator[ThreadingHTTPServer]:
    """Serves ``.says`` at /healthz."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/healthz"
            status, body = self.server.says  # type: ignore[attr-defined]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def target(server: ThreadingHTTPServer) -> str:
    return f"127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    "says", [(200, b'{"status":"ok","calls":3}\n'), (503, b'{"status":"draining"}')], ids=["serving", "draining"]
)
def test_a_process_that_serves_or_drains_is_well(process, says):
    process.says = says
    assert ask(target(process)) == says[1].decode().strip()


@pytest.mark.parametrize(
    "says",
    [(200, b'{"status":"lost"}'), (200, b"It works!"), (200, b"[]"), (500, b""), (200, b'{"state":"ok"}')],
    ids=["other status", "no JSON", "no object", "empty", "no status"],
)
def test_anything_else_is_not(process, says):
    process.says = says
    with pytest.raises(UnwellError, match=target(process)):
        ask(target(process))


def test_a_process_that_is_away_is_not_well():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UnwellError, match="refused"):
            ask(f"127.0.0.1:{taken.getsockname()[1]}")


def test_a_rendered_site_says_where_every_process_is(tmp_path):
    site = Site(tmp_path)
    site.write()
    render(tandem_settings.load(site.config, site.environment), site.rendered)
    assert place(site.rendered, "kamailio") == f"{site.edge[0]}:5067"
    assert place(site.rendered, "esl_app", "worker-2") == f"{site.address(12)}:8085"
    assert place(site.rendered, "media_fork", "worker-1") == f"{site.address(11)}:8090"
    with pytest.raises(UnwellError, match="has no esl_app worker-3"):
        place(site.rendered, "esl_app", "worker-3")
    with pytest.raises(UnwellError, match="No such file"):
        place(site.folder, "kamailio")


def test_the_command_s_exit_status_is_the_answer(process, tmp_path: Path):
    targets = [{"targets": [target(process)], "labels": {"component": "esl_app", "worker": "worker-1"}}]
    (tmp_path / "prometheus.json").write_text(json.dumps(targets))

    def check() -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tandem.health", str(tmp_path), "esl_app", "worker-1"]
        return subprocess.run(argv, check=False, capture_output=True, text=True)

    process.says = (200, b'{"status":"ok"}')
    assert check().returncode == 0
    process.says = (500, b"")
    answer = check()
    assert answer.returncode == 1
    assert target(process) in answer.stderr
