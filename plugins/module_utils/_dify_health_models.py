# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""Whether model servers can be reached from where Dify calls them: inside a container, not on the host."""

from __future__ import annotations

import json

from ansible_collections.llmops.stack.plugins.module_utils._dify_health_engine import (
    Look,
    Result,
    failed,
    ok,
    skipped,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_host import inventory
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import Container, DockerError, last_line

# Plugins run in the daemon's container; before Dify 1.0 the API called models itself.
_CALLERS = ("plugin_daemon", "api")

# Runs inside the container, with the Python that every Dify image with model code has. Ollama answers /api/version
# whatever its models do; that they answer, too, is what the role ollama and the later checks prove.
_ASK = """
import http.client, json, socket, sys
from urllib.parse import urlsplit
for url in sys.argv[2:]:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname, parts.port, timeout=float(sys.argv[1]))
        connection.request("GET", parts.path.rstrip("/") + "/api/version")
        answer = connection.getresponse()
        body = answer.read(65536)
        try:
            said = str(json.loads(body)["version"])
        except Exception:
            said = ""
        found = {"status": answer.status, "version": said}
    except socket.gaierror:
        found = {"error": "dns"}
    except (socket.timeout, TimeoutError):
        found = {"error": "timeout"}
    except ConnectionRefusedError:
        found = {"error": "refused"}
    except Exception as exc:
        found = {"error": "other", "text": str(exc) or type(exc).__name__}
    print(json.dumps({"url": url, **found}))
"""

# kind -> (what was found, what to do)
_TROUBLE = {
    "dns": (
        "the name is unknown there",
        "On a Linux host host.docker.internal exists only in services with extra_hosts, which the role dify adds: run "
        "site.yml, or use an address.",
    ),
    "refused": (
        "the connection is refused",
        "The model server, or the gateway before it (llmops-gateway.service), is down, listens on 127.0.0.1 only "
        "(ollama_bind, gateway_bind), or its firewall lets this network not in (ollama_containers and ollama_allow, "
        "gateway_containers and gateway_allow).",
    ),
    "timeout": (
        "nothing answers in time",
        "A firewall drops the packets: let Dify's container networks reach the port (ollama_containers and "
        "ollama_allow, gateway_containers and gateway_allow, or the host's own firewall).",
    ),
    "other": ("the connection fails", "See that a model server is at this address."),
    "answer": (
        "something answers there, but not as Ollama",
        "Correct the address: scheme, host and port, without /v1 or /api.",
    ),
}


def check_model_servers(look: Look) -> Result:
    servers = look.options.model_servers
    if not servers:
        return skipped("No model server was named.")
    if not look.options.project:
        return skipped("No project was given, so there is no container to ask from.")
    try:
        caller = _caller(inventory(look))
        if caller is None:
            return failed(
                "There is no running container that could ask the model servers.",
                "Start plugin_daemon (before Dify 1.0: api).",
            )
        answers, error = _ask(look, caller, servers)
    except DockerError as exc:
        return failed(f"The model servers cannot be asked: {look.clean(str(exc))}", "Check the Docker daemon.")
    if error:
        return failed(
            f"The model servers cannot be asked from {caller.service}: {look.clean(error)}",
            f"See that python3 runs in {caller.name}.",
        )
    for answer in answers:
        kind = answer.get("error") or ("" if answer.get("status") == 200 and answer.get("version") else "answer")
        if kind:
            found, advice = _TROUBLE[kind]
            text = f" ({look.clean(answer['text'], 120)})" if answer.get("text") else ""
            return failed(f"From inside {caller.service}, {look.clean(answer['url'])}: {found}{text}", advice)
    told = ", ".join(f"{look.clean(answer['url'])} (Ollama {look.clean(answer['version'], 40)})" for answer in answers)
    return ok(f"Reached from inside {caller.service}: {told}")


def _caller(containers: list[Container]) -> Container | None:
    """The container in which model code runs. Where there is a daemon it must be that one, running or not."""
    for service in _CALLERS:
        found = [one for one in containers if one.service == service]
        if found:
            return next((one for one in found if one.running), None)
    return None


def _ask(look: Look, caller: Container, servers: list[str]) -> tuple[list[dict[str, str]], str]:
    """One answer per server, or an error where the question itself could not be asked."""
    each = min(3.0, look.timeout)
    command = ["exec", "-i", caller.id, "python3", "-", f"{each:g}", *servers]
    code, out, err = look.docker.run(command, look.cap(2.0 + each * len(servers)), stdin=_ASK)
    try:
        answers = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    except ValueError:
        answers = []
    if code or len(answers) != len(servers):
        return [], last_line(err) or f"exit code {code}"
    return answers, ""
