#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon
short_description: Configure Docker Engine and keep it running
version_added: 0.1.0
description:
  - Merges settings into C(daemon.json), lets C(dockerd) validate the result before it lands, and makes the engine
    follow with the gentlest means. A reload where that is enough, a restart only where it is not, nothing where
    nothing changed.
  - Where C(live-restore) is being switched on together with settings that need a restart, it is switched on first by
    a reload, so that running containers survive the restart.
  - When the engine does not come up with the new file, the old one is put back, the engine is started with it, and
    the module fails.
  - A run that was killed between writing the file and telling the engine is finished by the next one.
  - Starts the engine and enables its service. Without systemd as init, C(dockerd) is started directly, in a session
    of its own, with its output in O(log_file).
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
    details:
      - User names and passwords in URLs are blanked.
options:
  config:
    description:
      - Settings that C(daemon.json) must have. Dictionaries are merged, everything else replaces what is there.
      - A key with the value V(null) is taken out.
    type: dict
    default: {}
  baseline:
    description: Settings for which O(config) and the existing file have no value of their own.
    type: dict
    default: {}
  proxies:
    description:
      - Proxies of the engine itself (from Docker 23.0 on). They have an option of their own because they may carry
        passwords.
    type: dict
    suboptions:
      http_proxy:
        description: Proxy for C(http) addresses.
        type: str
      https_proxy:
        description: Proxy for C(https) addresses.
        type: str
      no_proxy:
        description: Comma-separated hosts that are reached without a proxy.
        type: str
  path:
    description: The configuration file.
    type: path
    default: /etc/docker/daemon.json
  log_file:
    description: Where C(dockerd) writes when it is started without systemd.
    type: path
    default: /var/log/dockerd.log
  deadline:
    description: Seconds that the engine may take to answer after a start, reload or restart.
    type: float
    default: 60.0
author:
  - llmops.stack contributors (@llmops)
"""

EXAMPLES = r"""
- name: Pull through a mirror and rotate logs
  llmops.stack.docker_daemon:
    config:
      registry-mirrors: ["https://mirror.example.com"]
    baseline:
      log-opts: {max-size: 20m, max-file: "5"}
"""

RETURN = r"""
action:
  description: What the engine needed, or would need in check mode.
  returned: success
  type: str
  choices: ["", start, reload, restart]
  sample: reload
changed_keys:
  description: Top-level keys of C(daemon.json) that changed.
  returned: success
  type: list
  elements: str
  sample: [registry-mirrors]
"""

import http.client
import os
import re
import signal
import tempfile
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils import _docker_daemon as rules
from ansible_collections.llmops.stack.plugins.module_utils._detached import start_detached
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts import (
    PENDING_FILE,
    DockerSocket,
    parse_daemon_json,
    run_command,
)
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

SOCKET = "/run/docker.sock"
PID_FILE = "/run/docker.pid"
PENDING = f"/{PENDING_FILE}"


class DaemonError(Exception):
    """Something an operator must look at; the text is what they read."""


class DockerDaemon:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path: str = module.params["path"]
        self.log_file: str = module.params["log_file"]
        self.deadline: float = module.params["deadline"]
        self.systemd = os.path.isdir("/run/systemd/system")
        self.dockerd: str | None = module.get_bin_path("dockerd")

    def run(self) -> dict[str, t.Any]:
        text = self._read()
        before = self._parse(text)
        config = rules.with_proxies(self.module.params["config"], self.module.params["proxies"] or {})
        after = rules.wanted_config(before, config, self.module.params["baseline"])
        keys = rules.changed_keys(before, after)
        running, enabled = self._answers(2.0), self._enabled()
        action = rules.stronger(rules.needed_action(before, after), self._pending()) if running else "start"
        exposed = text is not None and self._exposed(after)
        result: dict[str, t.Any] = {
            "changed": bool(keys or action or not enabled or exposed),
            "action": action,
            "changed_keys": keys,
            "diff": self._diff(text, before, after, keys),
        }
        if self.module.check_mode or not result["changed"]:
            return result
        if not self.dockerd:
            raise DaemonError("There is no dockerd on this host. Install Docker Engine first (docker_source).")
        if keys:
            self._validate(after)
            self._mark(action)
            self._land(rules.dump(after), private=_has_login(after))
        elif exposed:
            os.chmod(self.path, 0o600)
        try:
            self._apply(action, after, gently=rules.keep_containers(before, after))
        except DaemonError as exc:
            if not keys:
                raise
            outcome = self._put_back(text, action, before)
            raise DaemonError(
                f"{exc} Changed were: {', '.join(keys)}. The previous {self.path} is back{outcome}."
            ) from exc
        self._unmark()
        if not enabled:
            self._command(["systemctl", "enable", "docker.service"], "enable the service")
        return result

    # -- the file --------------------------------------------------------------

    def _read(self) -> str | None:
        try:
            with open(self.path, encoding="utf-8") as handle:
                return handle.read()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as exc:
            raise DaemonError(f"Cannot read {self.path}: {exc}. Correct or move the file, then run again.") from exc

    def _parse(self, text: str | None) -> rules.Config:
        state = parse_daemon_json(text or "")
        if not state["valid"]:
            raise DaemonError(
                f"{self.path} is not valid JSON ({state['error']}). Nothing was changed. "
                "Correct it or move it away, then run again."
            )
        return t.cast("rules.Config", self.module.from_json(text)) if text and text.strip() else {}

    def _diff(self, text: str | None, before: rules.Config, after: rules.Config, keys: list[str]) -> dict[str, str]:
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": "" if text is None else rules.dump(mask_urls(before)),
            "after": rules.dump(mask_urls(after)) if keys or text is not None else "",
        }

    def _validate(self, config: rules.Config) -> None:
        """Let dockerd judge the file where it can (from 23.0 on); an older one only starts or does not."""
        if "--validate" not in run_command([str(self.dockerd), "--help"])[1]:
            if "proxies" in config:
                raise DaemonError(
                    "This engine is older than 23.0 and knows no proxies in daemon.json. Nothing was changed. "
                    "Leave docker_proxies empty and give the service HTTP_PROXY, or take a newer engine."
                )
            return
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as candidate:  # mode 0600
            candidate.write(rules.dump(config))
            candidate.flush()
            rc, output = run_command([str(self.dockerd), "--validate", f"--config-file={candidate.name}"], timeout=15)
            if rc != 0:
                reason = mask_urls(output.strip().splitlines()[-1] if output.strip() else f"exit code {rc}")
                reason = reason.replace(candidate.name, self.path)
                raise DaemonError(
                    f"dockerd refuses the new {self.path}: {reason}. Nothing was changed; correct docker_daemon_config."
                )

    def _exposed(self, config: rules.Config) -> bool:
        """Whether others can read a file that holds credentials."""
        return _has_login(config) and bool(os.stat(self.path).st_mode & 0o077)

    def _land(self, text: str, private: bool) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        if private:
            # What moves over a file gets its mode: so there is no moment in which others can read it.
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
            os.chmod(self.path, 0o600)
        self.module.add_cleanup_file(self._write_beside(text))
        new = not os.path.exists(self.path)
        self.module.atomic_move(self.module.cleanup_files[-1], self.path)
        if new:
            os.chmod(self.path, 0o644)

    def _write_beside(self, text: str) -> str:
        descriptor, name = tempfile.mkstemp(dir=self.module.tmpdir)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
        return name

    def _put_back(self, text: str | None, action: str, config: rules.Config) -> str:
        if text is None:
            os.unlink(self.path)
        else:
            self._land(text, private=_has_login(config))
        try:
            self._apply("restart" if action == "start" else action, config, gently=False)
        except DaemonError:
            return ", but the engine does not run with it either"
        self._unmark()
        return " and the engine runs with it"

    # -- what a killed run left to do ------------------------------------------

    def _pending(self) -> str:
        try:
            with open(PENDING, encoding="ascii") as handle:
                found = handle.read().strip()
        except OSError:
            return ""
        return found if found in ("reload", "restart") else "restart"

    def _mark(self, action: str) -> None:
        if action in ("reload", "restart"):
            os.makedirs(os.path.dirname(PENDING), mode=0o755, exist_ok=True)
            with open(PENDING, "w", encoding="ascii") as handle:
                handle.write(f"{action}\n")

    def _unmark(self) -> None:
        if os.path.exists(PENDING):
            os.unlink(PENDING)

    # -- the engine ------------------------------------------------------------

    def _answers(self, deadline: float) -> bool:
        try:
            return bool(DockerSocket(SOCKET, deadline).get("/version"))
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def _enabled(self) -> bool:
        return not self.systemd or run_command(["systemctl", "is-enabled", "docker.service"])[0] == 0

    def _apply(self, action: str, config: rules.Config, gently: bool) -> None:
        if action == "start":
            self._start()
        elif action == "reload":
            self._reload(config)
        elif action == "restart":
            if gently:
                self._reload({"live-restore": True})
            self._restart()

    def _reload(self, config: rules.Config) -> None:
        os.kill(self._pid(), signal.SIGHUP)
        until = time.monotonic() + min(self.deadline, 15.0)
        while not rules.follows(self._info(), config):
            if time.monotonic() > until:
                raise DaemonError(f"Docker Engine did not take over the new configuration.{self._last_words()}")
            time.sleep(0.2)

    def _info(self) -> dict[str, t.Any]:
        try:
            return t.cast("dict[str, t.Any]", DockerSocket(SOCKET, 5.0).get("/info"))
        except (OSError, ValueError, http.client.HTTPException):
            return {}

    def _start(self) -> None:
        if self.systemd:
            self._command(["systemctl", "reset-failed", "docker.service"], "")
            self._command(["systemctl", "start", "docker.service"], "start")
        else:
            start_detached([str(self.dockerd)], self.log_file)
        self._wait("start")

    def _restart(self) -> None:
        if self.systemd:
            self._command(["systemctl", "reset-failed", "docker.service"], "")
            self._command(["systemctl", "restart", "docker.service"], "restart")
            self._wait("restart")
            return
        self._stop()
        self._start()

    def _stop(self) -> None:
        try:
            pid = self._pid()
            os.kill(pid, signal.SIGTERM)
        except (DaemonError, ProcessLookupError):
            return
        until = time.monotonic() + self.deadline
        while os.path.exists(f"/proc/{pid}/exe"):
            if time.monotonic() > until:
                raise DaemonError(f"dockerd (process {pid}) did not stop within {self.deadline:g} s.")
            time.sleep(0.2)

    def _pid(self) -> int:
        try:
            with open(PID_FILE, encoding="ascii") as handle:
                return int(handle.read().strip())
        except (OSError, ValueError) as exc:
            raise DaemonError(f"Cannot tell which process is dockerd: {PID_FILE} is missing or empty.") from exc

    def _wait(self, verb: str) -> None:
        until = time.monotonic() + self.deadline
        while not self._answers(2.0):
            if time.monotonic() > until:
                raise DaemonError(f"Docker Engine did not {verb} within {self.deadline:g} s.{self._last_words()}")
            time.sleep(0.3)

    def _command(self, argv: list[str], verb: str) -> None:
        rc, output = run_command(argv, timeout=self.deadline)
        if rc != 0 and verb:
            detail = output.strip().splitlines()[0].rstrip(".") if output.strip() else argv[0]
            raise DaemonError(f"Docker Engine did not {verb}: {detail}.{self._last_words()}")

    def _last_words(self) -> str:
        """The engine's own last error line: the reason an operator would look up next."""
        if self.systemd:
            output = run_command(["journalctl", "-u", "docker.service", "-n", "20", "--no-pager", "-o", "cat"])[1]
        else:
            output = run_command(["tail", "-n", "20", self.log_file])[1]
        lines = [line for line in output.splitlines() if re.search("failed to|unable to|level=fatal", line)]
        return f" It said: {mask_urls(lines[-1].strip())}." if lines else ""


def _has_login(config: rules.Config) -> bool:
    return mask_urls(config) != config


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "dict", "default": {}},
            "baseline": {"type": "dict", "default": {}},
            "proxies": {
                "type": "dict",
                "options": {
                    "http_proxy": {"type": "str", "no_log": True},
                    "https_proxy": {"type": "str", "no_log": True},
                    "no_proxy": {"type": "str"},
                },
            },
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "log_file": {"type": "path", "default": "/var/log/dockerd.log"},
            "deadline": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    try:
        result = DockerDaemon(module).run()
    except DaemonError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"Cannot configure Docker Engine: {exc}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
