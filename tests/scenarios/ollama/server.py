"""The CPU node of Molecule's scenario ollama: its server, its store, and one task of ollama_model at a time."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from machine import Machine

MACHINE = Machine("ollama2", "ollama")
NODE = MACHINE.name
on_node, play = MACHINE.on, MACHINE.play
MODELS = "/usr/share/ollama/.ollama/models"
MODEL = "deepseek-r1:1.5b"
MANIFEST = f"{MODELS}/manifests/registry.ollama.ai/library/deepseek-r1/1.5b"


@dataclasses.dataclass
class Result:
    """What a module returned, and what the screen showed meanwhile."""

    told: dict[str, Any]
    output: str

    @property
    def failed(self) -> bool:
        return bool(self.told.get("failed"))

    @property
    def message(self) -> str:
        return str(self.told.get("msg", ""))

    @property
    def changed(self) -> bool:
        return bool(self.told["changed"])

    @property
    def model(self) -> dict[str, Any]:
        (only,) = self.told["models"]
        return only


def ollama_model(check: bool = False, **options: Any) -> Result:
    """Run one task of the module on the node."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "result.json")
        playbook = str(Path(__file__).with_name("model.yml"))
        given = {"models_dir": MODELS, "registry": "upstream", "insecure": True, **options}
        run = MACHINE.play(playbook, *(["--check"] if check else []), options=given, out=str(out))
        assert out.exists(), run.output[-4000:]
        assert "Traceback" not in run.output
        return Result(json.loads(out.read_text()), run.output)


def weights() -> str:
    """The path of the model's weights."""
    layers = json.loads(on_node(f"cat {MANIFEST}"))["layers"]
    digest = next(layer["digest"] for layer in layers if layer["mediaType"].endswith(".model"))
    return f"{MODELS}/blobs/{digest.replace(':', '-')}"


def digest_of(path: str) -> str:
    return on_node(f"sha256sum {path}").split()[0]


def version() -> str:
    """What the server on the node says it is, empty where none answers."""
    ask = (
        "import json, urllib.request as u; "
        'print(json.load(u.urlopen("http://127.0.0.1:11434/api/version", timeout=5))["version"])'
    )
    return on_node(f"python3 -c '{ask}' 2>/dev/null || true")


def answer_for(container: str) -> str:
    """What another host of the world gets from the node; empty where the connection is refused."""
    ask = (
        "import urllib.error, urllib.request as u\n"
        f'try: print(u.urlopen("http://{NODE}:11434/api/version", timeout=5).read().decode())\n'
        "except urllib.error.URLError as error:\n"
        "    if not isinstance(error.reason, ConnectionRefusedError): raise"
    )
    done = subprocess.run(
        ["docker", "exec", container, "python3", "-c", ask], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def process() -> str:
    return on_node("systemctl show --property MainPID --value ollama.service")


def wait_for_server() -> None:
    on_node("systemctl start ollama.service")
    on_node("for i in $(seq 60); do ss -Hltn 'sport = :11434' | grep -q . && exit 0; sleep 0.25; done; exit 1")
