"""What the running server tells and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlparse

import pytest
from app_server import Server
from watched import LEAVES, WATCHED

pytestmark = pytest.mark.browser


def get(server: Server, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
    """The answer and its body."""
    connection = HTTPConnection(urlparse(server.url).netloc, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_the_page_forbids_its_scripts_to_reach_other_machines(server: Server) -> None:
    answer, _ = get(server, "/")
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert "connect-src 'self' data: blob:" in policy
    assert "http" not in policy


def test_it_listens_to_this_machine_alone(server: Server) -> None:
    listening = [each.laddr.ip for each in server.process.net_connections("inet") if not each.raddr]
    assert set(listening) == {"127.0.0.1"}


def test_what_a_process_reaches_for_beyond_this_machine_is_noticed_even_if_it_fails() -> None:
    code = """
import contextlib, socket, watched
watched.watch()
for address in (("127.0.0.1", 1), ("localhost", 1), ("192.0.2.1", 80), ("name.invalid", 443)):
    with contextlib.suppress(OSError):
        socket.create_connection(address, timeout=0.01)
with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as local:
    local.connect("nobody")
with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as datagram:
    datagram.sendto(b"", ("192.0.2.2", 53))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        WATCHED,
        f"{LEAVES} socket.getaddrinfo 192.0.2.1",
        f"{LEAVES} socket.connect 192.0.2.1",
        f"{LEAVES} socket.getaddrinfo name.invalid",
        f"{LEAVES} socket.sendto 192.0.2.2",
    ]


def test_a_foreign_host_name_is_refused(server: Server) -> None:
    answer, _ = get(server, "/", Host="evil.example")
    assert answer.status == 400


def test_a_foreign_site_may_not_read_answers(server: Server) -> None:
    for path in ("/ready", "/config"):
        answer, _ = get(server, path, Origin="http://evil.example")
        assert answer.headers["access-control-allow-origin"] is None


def test_the_server_tells_whether_its_models_are_loaded(server: Server) -> None:
    _, body = get(server, "/ready")
    assert set(json.loads(body)) == {"ready", "device", "seconds", "problem"}


def test_the_thumbnails_are_part_of_the_page(server: Server) -> None:
    _, body = get(server, "/config")
    parts = [each["props"] for each in json.loads(body)["components"]]
    gallery = next(each for each in parts if each.get("elem_id") == "gallery")
    assert len(gallery["value"]) >= 4
    assert gallery["selected_index"] == 0
    picture, _ = get(server, urlparse(gallery["value"][0]["image"]["url"]).path)
    assert picture.headers["content-type"] == "image/webp"


def test_plotly_comes_from_this_machine(server: Server) -> None:
    answer, body = get(server, "/static/plotly.min.js")
    assert answer.status == 200
    assert len(body) > 1_000_000


@pytest.mark.parametrize("path", ["/etc/passwd", "app/server.py", "assets/../pyproject.toml"])
def test_files_of_the_machine_are_not_served(server: Server, path: str) -> None:
    answer, _ = get(server, f"/gradio_api/file={path}")
    assert answer.status in (403, 404)
