# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints against gpg's own, and the module against a key server of its own."""

from __future__ import annotations

import http.server
import json
import pathlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.llmops.stack.plugins.module_utils import _openpgp
from ansible_collections.llmops.stack.plugins.modules import signing_key

pytestmark = pytest.mark.skipif(not shutil.which("gpg"), reason="gpg makes the keys")


def make_key(home: pathlib.Path, name: str, algorithm: str) -> tuple[str, bytes]:
    home.mkdir(mode=0o700, exist_ok=True)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    subprocess.run([*gpg, "--passphrase", "", "--quick-gen-key", name, algorithm, "sign", "never"], check=True)
    listing = subprocess.run([*gpg, "--with-colons", "--list-keys", name], check=True, capture_output=True, text=True)
    fingerprint = next(line.split(":")[9] for line in listing.stdout.splitlines() if line.startswith("fpr"))
    subprocess.run([*gpg, "--passphrase", "", "--quick-add-key", fingerprint, algorithm, "sign"], check=True)
    return fingerprint, subprocess.run([*gpg, "--export", name], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, bytes]]]:
    home = tmp_path_factory.mktemp("gpg")
    yield {"rsa": make_key(home, "one@example.com", "rsa2048"), "ed": make_key(home, "two@example.com", "ed25519")}
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


@pytest.mark.parametrize("kind", ["rsa", "ed"])
def test_fingerprint_is_what_gpg_says_subkeys_left_out(keys: dict[str, tuple[str, bytes]], kind: str) -> None:
    fingerprint, data = keys[kind]
    assert _openpgp.fingerprints(data) == [fingerprint]
    armored = _openpgp.armor(data)
    assert _openpgp.fingerprints(armored.replace("\n", "\r\n").encode()) == [fingerprint]
    shown = subprocess.run(
        ["gpg", "--show-keys", "--with-colons"], input=armored.encode(), capture_output=True, check=True
    )
    assert fingerprint in shown.stdout.decode()


def test_every_primary_key_is_seen(keys: dict[str, tuple[str, bytes]]) -> None:
    both = keys["rsa"][1] + keys["ed"][1]
    assert _openpgp.fingerprints(both) == [keys["rsa"][0], keys["ed"][0]]
    two_blocks = (_openpgp.armor(keys["rsa"][1]) + _openpgp.armor(keys["ed"][1])).encode()
    assert _openpgp.fingerprints(two_blocks) == [keys["rsa"][0], keys["ed"][0]]


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>404</html>", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!\n-----END PGP PUBLIC KEY BLOCK-----"],
)
def test_what_is_no_key(data: bytes) -> None:
    with pytest.raises(_openpgp.NotAKey):
        _openpgp.fingerprints(data)


def test_a_key_that_is_cut_off(keys: dict[str, tuple[str, bytes]]) -> None:
    for size in (1, 2, 3, 100):
        with pytest.raises(_openpgp.NotAKey):
            _openpgp.fingerprints(keys["rsa"][1][:size])


@pytest.mark.parametrize(
    "text", ["9dc8 5822 9fc7 dd38 854a  e2d8 8d81 803c 0ebf cd88", "0x9DC858229FC7DD38854AE2D88D81803C0EBFCD88"]
)
def test_fingerprints_as_people_write_them(text: str) -> None:
    assert _openpgp.normalise(text) == "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"


@pytest.mark.parametrize("text", ["", "0EBFCD88", "9DC858229FC7DD38854AE2D88D81803C0EBFCD8G"])
def test_short_ids_are_no_fingerprints(text: str) -> None:
    with pytest.raises(ValueError, match="40 hexadecimal digits"):
        _openpgp.normalise(text)


@pytest.fixture
def server() -> Iterator[Any]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            httpd.hits += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(httpd.body)

        def log_message(self, *args: Any) -> None:
            pass

    httpd: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.hits = 0
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def run(capsys: pytest.CaptureFixture[str], check: Any = False, **params: Any) -> dict[str, Any]:
    with patch_module_args({**params, "_ansible_check_mode": check}):
        basic._ANSIBLE_PROFILE = "legacy"
        with pytest.raises(SystemExit):
            signing_key.main()
    return json.loads(capsys.readouterr().out)


def test_the_key_lands_once(keys: Any, server: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.body = keys["rsa"][1]
    params = {
        "url": f"http://127.0.0.1:{server.server_port}/gpg",
        "fingerprint": keys["rsa"][0],
        "path": str(tmp_path / "k/docker.asc"),
    }
    assert run(capsys, check=True, **params)["changed"]
    assert (server.hits, (tmp_path / "k").exists()) == (0, False)
    assert run(capsys, **params)["changed"]
    assert not run(capsys, **params)["changed"]
    assert server.hits == 1
    stored = tmp_path / "k/docker.asc"
    assert stored.read_text().startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert stored.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("extra", [False, True])
def test_another_key_is_refused_and_the_old_one_stays(
    keys: Any, server: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], extra: bool
) -> None:
    server.body = keys["rsa"][1] + keys["ed"][1] if extra else keys["ed"][1]
    path = tmp_path / "docker.asc"
    path.write_text("old")
    result = run(capsys, url=f"http://127.0.0.1:{server.server_port}/gpg", fingerprint=keys["rsa"][0], path=str(path))
    assert result["failed"]
    assert f"expected fingerprint {keys['rsa'][0]}" in result["msg"]
    assert keys["ed"][0] in result["msg"]
    assert path.read_text() == "old"


def test_what_goes_wrong_on_the_way(server: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.body = b"<html>captive portal</html>"
    params = {"fingerprint": "9DC858229FC7DD38854AE2D88D81803C0EBFCD88", "path": str(tmp_path / "k")}
    assert "is not a signing key" in run(capsys, url=f"http://127.0.0.1:{server.server_port}/gpg", **params)["msg"]
    message = run(capsys, url="http://me:pa55@127.0.0.1:1/gpg", **params)["msg"]
    assert "Cannot fetch" in message
    assert "stack_mirror" in message
    assert "pa55" not in message
