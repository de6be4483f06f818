#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_plugin
short_description: Have plugins in a Dify workspace, at a version, and proved to run
version_added: 0.1.0
author:
  - llmops.stack contributors (@llmops)
description:
  - Installs, upgrades and removes plugins through Dify's console API, from the marketplace, from a package on the
    managed host, or from a release on GitHub, and waits until the plugin daemon is done.
  - Dify reports an installation of another version over an installed one as successful, and changes nothing. So this
    module upgrades by upgrade calls, and believes only what the workspace lists afterwards.
  - A plugin is listed also where its process is dead, or its file is lost. O(verify=process) asks the process itself.
  - Models and their credentials survive an upgrade, and also an uninstallation followed by an installation.
  - Dify before 1.0 has no plugins. The module says so and fails, but for O(state=absent).
requirements:
  - PyYAML (Python library), for O(source=package)
extends_documentation_fragment:
  - llmops.stack.console
attributes:
  check_mode:
    description:
      - Tells what would be done. Nothing is uploaded, and processes are asked only of plugins that would not change.
    support: full
  diff_mode:
    description: Returns the version and the source of each plugin before and after.
    support: full
options:
  secrets_file:
    description:
      - The file on the host in which M(llmops.stack.dify_env) keeps the secrets. E(ADMIN_PASSWORD) is taken from it
        where O(password) is not given, and E(PLUGIN_DAEMON_KEY) where O(plugin_daemon_key) is not given, so that
        neither leaves the host.
      - A file that does not exist holds neither.
  plugin:
    description:
      - The plugin, as C(author/name), C(author/name:version) or a whole identifier with its checksum.
      - With O(source=package) it can be left out; where it is given, the package must be of that plugin.
    type: str
  plugins:
    description:
      - Several plugins with one login. An element is a name written like O(plugin), or a dictionary with the keys
        C(plugin), C(plugin_version) (or C(version)), C(state), C(source), C(package), C(repo), C(release),
        C(release_file) and C(pin), which mean what the options of that name do.
      - O(state) and O(pin) hold for the elements that do not say otherwise.
      - All elements are judged before anything is done. One whose installation fails does not keep the others back.
    type: list
    elements: raw
  plugin_version:
    description:
      - The exact version of O(plugin), as C(version) or C(version@checksum). An older one is a downgrade.
      - Without a version any that is installed will do, and the newest is installed where none is.
    type: str
  state:
    description:
      - V(present) has the plugin, and the given version of it.
      - V(latest) has the newest version of the marketplace. A newer one that is installed stays.
      - V(absent) removes it, whatever its version. Endpoints of the plugin go with it, credentials of models stay.
    type: str
    choices: [present, latest, absent]
    default: present
  source:
    description:
      - V(marketplace) lets Dify fetch it from its marketplace, E(MARKETPLACE_API_URL) of the API container.
      - V(package) takes O(package).
      - V(github) lets Dify fetch O(release_file) of O(release) of O(repo).
      - Without this option it follows from what is given, O(package) or O(repo), and is else V(marketplace).
    type: str
    choices: [marketplace, package, github]
  marketplace_url:
    description:
      - A marketplace, or a mirror of one, that the managed host reaches.
      - It is asked only for the checksum of a version that is not the newest, and for the package where a plugin of
        another source is to be replaced, one is to be reinstalled, or the plugin daemon lost its file. Everything else
        Dify itself asks E(MARKETPLACE_API_URL) for.
    type: str
    default: https://marketplace.dify.ai
  package:
    description:
      - A C(.difypkg) file on the managed host.
    type: path
  repo:
    description:
      - C(owner/name) on GitHub.
    type: str
  release:
    description:
      - Tag of the release on GitHub.
    type: str
  release_file:
    description:
      - Name of the C(.difypkg) file of that release.
    type: str
  verify:
    description:
      - V(none) believes the list of plugins as it is.
      - V(listed) looks at the list once more after everything was done.
      - V(process) has each plugin with a model provider answer a call, through the plugin daemon, after all of them
        were installed. Plugins of other kinds cannot be asked without doing something, and stay V(listed).
    type: str
    choices: [none, listed, process]
    default: listed
  plugin_daemon_url:
    description:
      - Address of the plugin daemon's port 5002. Stock compose files do not publish it.
    type: str
    default: http://127.0.0.1:5002
  plugin_daemon_key:
    description:
      - Value of E(PLUGIN_DAEMON_KEY). With it, or with O(secrets_file), the daemon's own upgrade is used where the
        console has none, which is the case for every plugin that came from a package.
    type: str
  reinstall:
    description:
      - Whether a plugin may be uninstalled and installed again, where nothing else leads to the wanted state. That is
        an upgrade for which the daemon's key is missing, and a plugin that is listed and whose process never comes.
      - Calls fail meanwhile, endpoints of the plugin are lost, and where the installation fails the plugin is gone. The
        package is brought to the plugin daemon first, and nothing is uninstalled where it cannot be had.
    type: bool
    default: false
  pin:
    description:
      - Whether Dify's automatic upgrades leave the plugin alone. V(true) takes it out of them, V(false) back in.
      - Dify 1.7 and newer upgrade plugins of the marketplace by themselves; newer ones bring those with models to the
        latest version.
      - Without this option a plugin of the marketplace is pinned if a version of it, or a package, is given, and
        otherwise left as it is, with a warning when it was installed.
    type: bool
  deadline:
    description:
      - Seconds after which the installation of a plugin is not waited for any longer. It goes on in the plugin daemon.
    type: float
    default: 600
  process_timeout:
    description:
      - Seconds that a plugin's process has to answer, with O(verify=process). After a start of the daemon its plugins
        are away for some seconds, and for half a minute where one has to be built again.
    type: float
    default: 45
  validate_certs:
    description:
      - Whether to check the certificates of an https O(url) and O(marketplace_url).
seealso:
  - module: llmops.stack.dify_setup
  - module: llmops.stack.dify_health
"""

EXAMPLES = r"""
- name: Have the Ollama plugin, whatever its version
  llmops.stack.dify_plugin:
    url: http://dify.example.com
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    plugin: langgenius/ollama

- name: Have it at an exact version, out of Dify's automatic upgrades, with a process that answers
  llmops.stack.dify_plugin:
    url: http://dify.example.com
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    plugin: langgenius/ollama
    plugin_version: 0.1.0
    verify: process
    secrets_file: /opt/dify/secrets.json

- name: Install a package, or upgrade to it, where there is no network
  llmops.stack.dify_plugin:
    url: http://dify.example.com
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    source: package
    package: /srv/plugins/langgenius-ollama_0.1.0.difypkg
    secrets_file: /opt/dify/secrets.json

- name: Have several with one login, with the owner's password that dify_env made
  llmops.stack.dify_plugin:
    email: admin@example.com
    secrets_file: /opt/dify/secrets.json
    verify: process
    plugins:
      - langgenius/ollama:0.1.0
      - plugin: langgenius/openai_api_compatible
        state: latest
        pin: false
      - source: package
        package: /srv/plugins/example-tools_0.2.0.difypkg
      - plugin: example/old
        state: absent

- name: Install from a release on GitHub
  llmops.stack.dify_plugin:
    url: http://dify.example.com
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    source: github
    plugin: example/assistant
    repo: example/dify-plugin-assistant
    release: v0.3.1
    release_file: assistant.difypkg

- name: Remove one
  llmops.stack.dify_plugin:
    url: http://dify.example.com
    email: admin@example.com
    password: "{{ dify_admin_password }}"
    plugin: langgenius/ollama
    state: absent
"""

RETURN = r"""
plugins:
  description: One entry for each plugin, also when the module fails.
  type: list
  elements: dict
  returned: always
  contains:
    plugin:
      description: The plugin, as C(author/name).
      type: str
      sample: langgenius/ollama
    identifier:
      description: The whole identifier of what is installed, or would be in check mode; empty if there is none.
      type: str
    version:
      description: Its version.
      type: str
      sample: 0.1.0
    source:
      description: Where Dify has it from, V(marketplace), V(package), V(github) or V(remote).
      type: str
    previous_version:
      description: The version that was installed before, empty if there was none.
      type: str
    action:
      description:
        - What was done, or would be in check mode; V(none), V(installed), V(upgraded), V(reinstalled) or
          V(uninstalled).
      type: str
    verified:
      description: What was proved, V(none), V(listed) or V(process).
      type: str
    auto_upgrade:
      description:
        - What Dify's automatic upgrades do with it, V(latest), V(fix_only) or V(disabled). Empty where this Dify has
          none, or they do not reach the plugin.
      type: str
    pinned:
      description: Whether automatic upgrades leave it alone.
      type: bool
    progress:
      description: What the task of the installation said, and after how many seconds.
      type: list
      elements: dict
      contains:
        seconds:
          description: Since the start of the module.
          type: float
        status:
          description: The task's status.
          type: str
        message:
          description: The plugin daemon's words.
          type: str
    error:
      description: What is wrong and what to do, where the wanted state was not reached.
      type: str
  sample:
    - plugin: langgenius/ollama
      identifier: langgenius/ollama:0.1.0@e0979632db5a88d1a53884cb2a941772d10ff5d055aabaa6801c4e36f3a6c2d7
      version: 0.1.0
      source: marketplace
      previous_version: 0.0.6
      action: upgraded
      verified: process
      auto_upgrade: disabled
      pinned: true
      progress:
        - {seconds: 0.3, status: running, message: starting}
        - {seconds: 8.4, status: success, message: upgraded}
reason:
  description: >-
    Kind of the failure, for conditions. For example V(wrong_password), V(locked) and V(no_answer).
  returned: failure, where Dify let the module do nothing
  type: str
  sample: wrong_password
"""

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils import _dify_plugin_package as packages
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_module import (
    console_arguments,
    console_of,
    fail,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin import Options, PluginError, Plugins, Wish
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_daemon import PluginDaemon
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_market import Marketplace
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_package import PackageError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_wishes import KEYS, WishError, wishes_of
from ansible_collections.llmops.stack.plugins.module_utils._dify_secrets import secrets_of
from ansible_collections.llmops.stack.plugins.module_utils._urls import logins


class DifyPlugin:
    """Options in, one result out."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self._validate()
        self.wishes = self._wishes()
        self.daemon = self._daemon()

    def _validate(self) -> None:
        params = self.params
        for name in ("url", "marketplace_url", "plugin_daemon_url"):
            self.module.no_log_values.update(logins(params[name]))
            if not re.match(r"^https?://[^\s/]+", params[name]):
                self.module.fail_json(msg=f"{name} must begin with http:// or https:// and name a host")
        for name in ("deadline", "process_timeout"):
            if params[name] <= 0:
                self.module.fail_json(msg=f"{name} must be greater than 0")
        if params["plugins"] is not None and (params["plugin_version"] or params["source"]):
            self.module.fail_json(
                msg="plugin_version and source are about one plugin: use plugin, or write them into the elements of "
                "plugins"
            )

    def _wishes(self) -> list[Wish]:
        params = self.params
        elements = params["plugins"]
        try:
            if elements is None:
                return wishes_of([{key: params[key] for key in KEYS}])
            return wishes_of(elements, state=params["state"], pin=params["pin"])
        except (WishError, PackageError) as exc:
            if isinstance(exc, PackageError) and not packages.HAS_YAML:
                self.module.fail_json(msg=missing_required_lib("PyYAML"), exception=packages.YAML_IMPORT_ERROR)
            self.module.fail_json(msg=str(exc))
        return []

    def _daemon(self) -> PluginDaemon | None:
        secrets = secrets_of(self.module, self.params["secrets_file"])
        key = self.params["plugin_daemon_key"] or secrets.get("PLUGIN_DAEMON_KEY", "")
        asked = self.params["verify"] == "process" and any(one.state != "absent" for one in self.wishes)
        # In check mode dify_env may not have written its file yet.
        later = self.module.check_mode and self.params["secrets_file"]
        if asked and not key and not later:
            self.module.fail_json(
                msg="verify=process asks the plugin daemon, which takes a key: give plugin_daemon_key, or a "
                "secrets_file that exists and holds PLUGIN_DAEMON_KEY"
            )
        return PluginDaemon(self.params["plugin_daemon_url"], key) if key else None

    def run(self) -> None:
        params = self.params
        verify = (params["ca_path"] or True) if params["validate_certs"] else False
        options = Options(
            marketplace=Marketplace(params["marketplace_url"], params["timeout"], verify),
            verify=params["verify"],
            reinstall=params["reinstall"],
            deadline=params["deadline"],
            process_timeout=params["process_timeout"],
            daemon=self.daemon,
            check=self.module.check_mode,
        )
        console = console_of(self.module)
        plugins = Plugins(console, options, lambda text: self.module.warn(console.hide(text)))
        trouble = ""
        try:
            if self.wishes:
                plugins.run(self.wishes)
        except ConsoleError as exc:
            fail(self.module, console, exc, **self._result(plugins))
        except (PluginError, OSError) as exc:
            trouble = str(exc)
        self._exit(plugins, trouble)

    @staticmethod
    def _result(plugins: Plugins) -> dict[str, Any]:
        return {
            "changed": plugins.changed,
            "plugins": [one.result() for one in plugins.items],
            "diff": {"before": plugins.before, "after": plugins.after},
        }

    def _exit(self, plugins: Plugins, trouble: str) -> None:
        errors = [one.error for one in plugins.items if one.error] + [trouble] * bool(trouble)
        # Whatever a log of the plugin daemon quotes.
        self.module.no_log_values.update(plugins.console.secrets)
        if errors:
            some = f"{len(errors)} of {len(plugins.items)} plugins are not as wanted. " if len(errors) > 1 else ""
            self.module.fail_json(msg=some + " ".join(errors), **self._result(plugins))
        self.module.exit_json(**self._result(plugins))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **console_arguments(),
            "plugin": {"type": "str"},
            "plugins": {"type": "list", "elements": "raw"},
            "plugin_version": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "latest", "absent"], "default": "present"},
            "source": {"type": "str", "choices": ["marketplace", "package", "github"]},
            "marketplace_url": {"type": "str", "default": "https://marketplace.dify.ai"},
            "package": {"type": "path"},
            "repo": {"type": "str"},
            "release": {"type": "str"},
            "release_file": {"type": "str"},
            "verify": {"type": "str", "choices": ["none", "listed", "process"], "default": "listed"},
            "plugin_daemon_url": {"type": "str", "default": "http://127.0.0.1:5002"},
            "plugin_daemon_key": {"type": "str", "no_log": True},
            "reinstall": {"type": "bool", "default": False},
            "pin": {"type": "bool"},
            "deadline": {"type": "float", "default": 600},
            "process_timeout": {"type": "float", "default": 45},
        },
        mutually_exclusive=[("plugins", name) for name in ("plugin", "package", "repo", "release", "release_file")],
        supports_check_mode=True,
    )
    DifyPlugin(module).run()


if __name__ == "__main__":
    main()
