"""Starting the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app import server
from app.__main__ import main


def test_help_loads_neither_gradio_nor_torch() -> None:
    code = (
        "import sys; from app.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'gradio', 'torch', 'fastapi'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_building_the_page_loads_no_torch() -> None:
    code = (
        "import sys, pathlib; from app.server import create; from app.warmup import WarmUp\n"
        "from explorer.store import Store\n"
        "create(WarmUp(), store=Store('x'), downloads=pathlib.Path('x'), hosts=[], origins=[])\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_port_in_use_gives_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["--port", str(taken.getsockname()[1])]) == 1
    assert "Choose another port" in capsys.readouterr().err


def test_every_address_is_announced_with_the_names_it_answers_to() -> None:
    assert server._names("127.0.0.1", []) == ["127.0.0.1", "localhost"]
    assert "lab.example" in server._names("0.0.0.0", ["lab.example"])
    assert "0.0.0.0" not in server._names("0.0.0.0", [])
    assert Path(server._plotly()).is_file()


def test_by_default_this_machine_alone_is_served_and_nothing_is_reported_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gradio import analytics

    served: dict[str, object] = {}
    monkeypatch.setattr(server, "serve", lambda **named: served.update(named) or 0)
    assert main([]) == 0
    assert served == {"host": "127.0.0.1", "port": 7860, "allowed_hosts": []}
    assert not analytics.analytics_enabled()
