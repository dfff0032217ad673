"""Behind the proxies of the serving page, with a browser: the page's buttons work."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from selenium import webdriver

from selfheal_cli.serve.settings import Sites, Tokens
from selfheal_cli.spool.control import ControlChannel
from tests.conftest import PATIENCE
from tests.serve.browser import NAME, click, fill, needs_browser, shows
from tests.serve.conftest import until
from tests.serve.operating import ANSWERS, WORSE, Healer, channel_with, operator_app, serving

PAGE = (Path(__file__).parents[2] / "docs/serving-protocol.md").read_text()
TOKENS = Tokens.of(scoring="score", operating="0perate")
NGINX = """
daemon off; pid {folder}/pid; error_log stderr;
events {{}}
http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
    fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port};
{block} }} }}
"""
HAPROXY = """
defaults
    timeout connect {patience:.0f}s
    timeout client {patience:.0f}s
    timeout server {patience:.0f}s
frontend shown
    mode http
    bind 127.0.0.1:{port}
    default_backend scores
{block}
"""
TRAEFIK = """
entryPoints: {{shown: {{address: "127.0.0.1:{port}"}}}}
providers: {{file: {{filename: "{folder}/block.yaml"}}}}
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
"""
KINDS = {
    "nginx": ("location /scores/", NGINX, "/scores/", ("nginx", "-c")),
    "haproxy": ("backend scores", HAPROXY, "/", ("haproxy", "-f")),
    "envoy": ("static_resources:", "{block}", "/", ("envoy", "--log-level", "off", "-c")),
    "traefik": ("http:\n  routers:", TRAEFIK, "/scores/", ("traefik", "--configFile")),
}
pytestmark = needs_browser


def needs_proxy(kind: str) -> None:
    if shutil.which(kind) is None:
        pytest.skip(f"no {kind}: apt-get install nginx-light haproxy; pip has the others")


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def proxied(kind: str, upstream: str, port: int, folder: Path) -> Iterator[str]:
    """The page's block of a proxy, running; gives the path under which the server is shown."""
    needs_proxy(kind)
    begin, whole, path, command = KINDS[kind]
    written = re.search(rf"^```\n({begin}.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert written is not None
    block = written[1].replace("http://127.0.0.1:5001", upstream)
    block = block.replace("127.0.0.1:5001", upstream.removeprefix("http://"))
    block = block.replace("port_value: 5001", f"port_value: {upstream.rpartition(':')[2]}")
    block = block.replace("0.0.0.0, port_value: 8080", f"127.0.0.1, port_value: {port}")
    (folder / "block.yaml").write_text(block)
    file = folder / f"{kind}.yaml"
    file.write_text(whole.format(folder=folder, port=port, block=block, patience=PATIENCE))
    process = subprocess.Popen([*command, str(file)])
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}{path}static/page.css"))
        yield path
    finally:
        process.terminate()
        process.wait(PATIENCE)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[ControlChannel]:
    shared = channel_with(tmp_path, WORSE)
    yield shared
    shared.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("host", "tokens"), [("127.0.0.1", TOKENS), (NAME, Tokens())], ids=["by token", "by name"]
)
def test_the_pages_buttons_work_behind_it(
    browser: webdriver.Chrome, channel: ControlChannel, tmp_path: Path, kind: str, host: str,
    tokens: Tokens,
) -> None:  # fmt: skip
    """Under a name over plain http no browser says that it is the same site."""
    port = free_port()
    sites = Sites(public_url=f"http://{NAME}:{port}/") if host == NAME else Sites()
    app = operator_app(channel, tokens, sites=sites)
    with (
        Healer(channel, ANSWERS),
        serving(app) as upstream,
        proxied(kind, upstream, port, tmp_path) as path,
    ):
        browser.get(f"http://{host}:{port}{path}")
        if tokens.callers:
            fill(browser, "#look-token", "score")
            click(browser, "#locked button")
            fill(browser, "#token", "0perate")
        click(browser, "#plan-9")
        shows(browser, "#said", "would serve: v9, F1 0.584 on 700 rows")
        browser.get("about:blank")  # a proxy ends once nobody is connected


@pytest.mark.slow
def test_a_name_that_nobody_has_allowed_is_told_how_it_is(
    browser: webdriver.Chrome, channel: ControlChannel, tmp_path: Path
) -> None:
    port = free_port()
    with (
        serving(operator_app(channel)) as upstream,
        proxied("haproxy", upstream, port, tmp_path),
    ):
        answer = requests.get(
            f"http://127.0.0.1:{port}/status", headers={"Host": NAME}, timeout=PATIENCE
        )
    assert answer.status_code == 403
    assert "--allowed-host" in answer.json()["message"]
