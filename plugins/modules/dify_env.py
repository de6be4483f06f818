#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dify_env
short_description: Render the settings of a Dify release
version_added: 0.1.0
description:
  - Writes C(.env) and C(docker-compose.override.yaml) into a release that M(llmops.stack.dify_release) unpacked. The
    release's own C(.env.example) is the template; comments and order stay, values are replaced in place, and keys that
    the template does not have are added in a block at the end.
  - What a release understands is read from its own files, so this works for every release, also for one that is newer
    than this module.
  - Passwords and keys are generated once, kept in C(<home>/secrets.json), and used for every later release. None of the
    defaults that Dify publishes survives. Keys that must hold the same value do, including the password inside of
    C(CELERY_BROKER_URL).
  - From 1.14.1 on a release has optional files below C(envs/). They are not created, as in Dify's own default
    deployment. C(.env) is read last and wins over them, so it stays the only file; the settings of the chosen vector
    store and database, which the API has no defaults for, are added to it from their examples.
  - C(DB_HOST) and C(COMPOSE_PROFILES) name services of one release and are rendered for it. C(DB_HOST=db) from the time
    before 1.10.1 becomes the name that the release uses; an address of a database elsewhere is kept.
  - Where a release publishes the port of a database, a vector store or the plugin debugger through a variable, it is
    bound to 127.0.0.1. Ports that cannot be bound that way, because the release spells them out, are warned about.
  - Certificates that were put into C(nginx/ssl) of the current release are copied into this one where it lacks them
    or has an older one.
  - The override publishes the plugin daemon on 127.0.0.1 only, adds C(host.docker.internal) to the services that call
    models, rotates logs, and marks services with a sum over the release files that they mount, so that a changed file
    recreates its service. It needs no more of Compose than the release itself.
author:
  - llmops.stack contributors (@llmops)
requirements:
  - PyYAML (Python library)
attributes:
  check_mode:
    description: Can run in check mode and tell what would change, without writing anything.
    support: full
  diff_mode:
    description: Returns both files before and after, with every secret hidden.
    support: full
options:
  home:
    description: The folder of the Dify installation.
    type: path
    default: /opt/dify
  version:
    description: Tag of the release, without a leading C(v).
    type: str
    required: true
  url:
    description:
      - Address under which people reach this Dify, with C(http://) or C(https://) and without a path.
      - Written to C(CONSOLE_WEB_URL), C(SERVICE_API_URL), C(APP_WEB_URL), C(FILES_URL), C(TRIGGER_URL),
        C(ENDPOINT_URL_TEMPLATE) and C(NEXT_PUBLIC_SOCKET_URL), as far as the release has them. Links in mails, files
        for models and plugins, webhooks and the collaboration socket need it. C(CONSOLE_API_URL) and C(APP_API_URL)
        stay empty, so that the console works under any name that leads to it.
      - Empty leaves all of them as the release has them.
    type: str
    default: ""
  overrides:
    description:
      - Keys of C(.env) and their values. They win over everything but two things. Of keys that must hold the same value
        it is enough to give one, and two different values are refused. C(DB_HOST) and C(COMPOSE_PROFILES) are corrected
        where they would leave the release without its database.
      - Values of C(<home>/adopted.json), which M(llmops.stack.dify_adopt) writes, count for less than these.
      - A password given here is stored in C(secrets.json) like a generated one. Changing it does not change it in a
        database that exists already.
    type: dict
    default: {}
  settings:
    description: Facts and choices that several keys follow from.
    type: dict
    default: {}
    suboptions:
      cpus:
        description: CPUs of the host, for the number of API and worker processes; V(0) counts as two.
        type: int
        default: 0
      memory_mb:
        description: Memory of the host; V(0) counts as V(4096).
        type: int
        default: 0
      http_port:
        description: Port on which Dify is published; V(0) hides it behind a random port on 127.0.0.1.
        type: int
        default: 80
      https_port:
        description: The same for HTTPS. Dify publishes it also when it serves no HTTPS.
        type: int
        default: 443
      bind_address:
        description: Address of the host for both ports; empty for all addresses.
        type: str
        default: ""
      plugin_daemon_port:
        description: Port on 127.0.0.1 for the plugin daemon.
        type: int
        default: 5002
      api_workers:
        description: Processes of the API; V(0) means half of the CPUs, with 4 GiB of memory for each.
        type: int
        default: 0
      api_connections:
        description:
          - Requests that each of them serves at a time; V(0) means 100, with 8 GiB of memory 200, with 16 GiB 400.
          - Dify's own default of 10 lets a few chats to a model that hangs stop the whole API.
        type: int
        default: 0
      celery_workers:
        description: Tasks that the worker runs at a time; V(0) means two for each CPU, from 4 to 16.
        type: int
        default: 0
      registry:
        description:
          - A registry, with an optional path, that all images are pulled from. It must hold them under the names that
            they have on Docker Hub (C(langgenius/dify-api), C(library/postgres)).
        type: str
        default: ""
      log_max_size:
        description: Size at which Docker rotates the log of a container; empty leaves logging to the engine.
        type: str
        default: 50m
      log_max_file:
        description: Number of log files for each container.
        type: int
        default: 3
      admin_password:
        description:
          - Password of Dify's owner, to be kept in C(secrets.json) as C(ADMIN_PASSWORD) where that has none yet. By
            default one of 24 letters and digits is made. It is in no C(.env).
          - M(llmops.stack.dify_setup) and the other modules of the console take it from there. One that is kept stays,
            because it may be the only copy of what opens Dify; M(llmops.stack.dify_setup) keeps another one once that
            has opened it.
        type: str
        default: ""
      marketplace_url:
        description:
          - Address of Dify's marketplace for plugins, or of a mirror of it, for C(api), C(worker), C(plugin_daemon) and
            C(web). Empty leaves it as the release has it.
          - This and the next settings have no effect in a release without plugins (0.15).
        type: str
        default: ""
      plugin_index:
        description:
          - Index of Python packages (PEP 503) from which the plugin daemon installs what plugins need, such as
            C(https://mirror.example.com/pypi/simple). It reaches C(uv) as C(-i); C(UV_) and C(PIP_) variables of a
            container do not.
          - With it or O(settings.plugin_wheels) the daemon ignores the lock files of plugins, which name files of the
            public index, and looks for no mirror by itself.
        type: str
        default: ""
      plugin_index_args:
        description:
          - More arguments for C(uv), separated by blanks, for example C(--native-tls) behind a proxy that replaces
            certificates. For an index over plain http C(--allow-insecure-host) is added by itself.
        type: str
        default: ""
      plugin_wheels:
        description:
          - Folder of the host with wheels, which the daemon gets as a read-only mount. Without O(settings.plugin_index)
            nothing else is asked, so plugins can be installed offline.
        type: path
      plugin_signatures:
        description: Whether packages of plugins must be signed by a key that is trusted.
        type: bool
        default: true
      plugin_public_keys:
        description:
          - Public keys, in PEM form, of others whose packages are trusted, too. They are written below the release and
            mounted read-only. Plugin daemons before 0.0.7 know no such keys.
        type: list
        elements: str
        default: []
      own_migration:
        description:
          - Whether the database is migrated for this release before its containers start, as
            M(llmops.stack.dify_upgrade) does. C(MIGRATION_ENABLED) is C(false) then, or each container would look for
            migrations once more at each of its starts, which takes 5 to 30 seconds of an outage.
          - A value for C(MIGRATION_ENABLED) in O(overrides) wins.
          - It is noted in the release, so that later runs write the same. The note does not count, and goes, where the
            release's own database is empty, since nobody else would make its tables.
        type: bool
        default: false
      plugin_max_mb:
        description:
          - How large a package of a plugin may be; V(0) leaves it as the release has it, which is 50.
          - C(NGINX_CLIENT_MAX_BODY_SIZE) is raised where it would be in the way.
        type: int
        default: 0
      compose_fragments:
        description:
          - Pieces in the form of a compose file that other roles bring, laid over C(docker-compose.override.yaml) in
            their order.
          - A service with an C(image) or C(build) that the release lacks is a new one of the project, with rotated logs
            and the image from O(settings.registry). Without them it is left out, so that a fragment may name services
            that only some releases have.
          - A port without an address is published on 127.0.0.1.
        type: list
        elements: dict
        default: []
      compose_override:
        description:
          - Laid over C(docker-compose.override.yaml) as the last thing, in the form of a compose file, and as it is.
        type: dict
        default: {}
  state:
    description: V(absent) removes both files, and never C(secrets.json).
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Render the settings of a release
  llmops.stack.dify_env:
    version: "1.12.1"
    url: https://dify.example.com
    overrides:
      LOG_LEVEL: WARNING
      UPLOAD_FILE_SIZE_LIMIT: 50
    settings:
      cpus: "{{ ansible_facts['processor_vcpus'] }}"
      memory_mb: "{{ ansible_facts['memtotal_mb'] }}"

- name: Give the API a certificate authority of the company
  llmops.stack.dify_env:
    version: "1.16.0"
    settings:
      compose_override:
        services:
          api:
            volumes: ["/etc/ssl/certs:/etc/ssl/certs:ro"]
"""

RETURN = r"""
env_path:
  description: The rendered C(.env).
  type: str
  returned: always
  sample: /opt/dify/releases/1.12.1/.env
override_path:
  description: The rendered override.
  type: str
  returned: always
  sample: /opt/dify/releases/1.12.1/docker-compose.override.yaml
secrets_file:
  description: The file with the secrets, readable by its owner only.
  type: str
  returned: always
  sample: /opt/dify/secrets.json
unknown_keys:
  description: Keys of O(overrides) that no file of the release mentions. They are written all the same.
  type: list
  elements: str
  returned: always
  sample: [LOG_LEVLE]
carried_unknown:
  description: Those of RV(unknown_keys) that another release on this host knows, so they came along from it.
  type: list
  elements: str
  returned: always
  sample: [PUBSUB_REDIS_URL]
replaced_defaults:
  description: Keys in which the release has a public default, and C(.env) a secret instead.
  type: list
  elements: str
  returned: always
  sample: [DB_PASSWORD, SECRET_KEY]
generated_secrets:
  description: Names of the secrets that this run made, or in check mode would make.
  type: list
  elements: str
  returned: always
  sample: [DB_PASSWORD, SECRET_KEY]
profiles:
  description: Compose profiles that are active.
  type: list
  elements: str
  returned: always
  sample: [weaviate, postgresql]
services:
  description: Services that C(docker compose up) starts. Empty in check mode while the release is not there.
  type: list
  elements: str
  returned: always
  sample: [api, worker, web, db_postgres, redis, nginx]
pending:
  description:
    - Whether the containers have not been brought to these files yet. It stays true, by the file C(.llmops-pending) in
      the release, until somebody has run C(docker compose up) and removed that file.
  type: bool
  returned: always
  sample: false
images:
  description: The image of each of them.
  type: dict
  returned: always
  sample: {"api": "langgenius/dify-api:1.12.1"}
"""

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.llmops.stack.plugins.module_utils import _dify_env as env
from ansible_collections.llmops.stack.plugins.module_utils import _dify_env_plugins as plugins
from ansible_collections.llmops.stack.plugins.module_utils import _dify_override as override
from ansible_collections.llmops.stack.plugins.module_utils import _dify_release as release
from ansible_collections.llmops.stack.plugins.module_utils._dify_owner import UNTRIED
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import parse_version
from ansible_collections.llmops.stack.plugins.module_utils._urls import logins

if release.HAS_YAML:
    import yaml

_OVERRIDE_HEAD = (
    "# Written by llmops.stack: changes made here are lost. Set dify_compose_override in the inventory instead.\n"
)


class DifyEnv:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.tag: str = module.params["version"]
        self.settings: dict[str, Any] = module.params["settings"]
        self.store = release.Store(module.params["home"])
        self.folder = self.store.path(self.tag)
        self.env_path = os.path.join(self.folder, ".env")
        self.override_path = os.path.join(self.folder, "docker-compose.override.yaml")
        self.pending_path = os.path.join(self.folder, ".llmops-pending")
        self.migrated_path = os.path.join(self.folder, ".llmops-migrated")
        self.secrets_file = os.path.join(self.store.home, "secrets.json")
        self.adopted_file = os.path.join(self.store.home, "adopted.json")
        self.keys_path = os.path.join(self.folder, plugins.KEYS_FOLDER)
        self.changed = False
        self.unapplied = False
        self.diff: list[dict[str, str]] = []

    def run(self) -> dict[str, Any]:
        try:
            parse_version(self.tag)
        except ValueError as exc:
            raise env.EnvError(f"{exc}. Correct dify_version.") from exc
        found: dict[str, Any] = {
            "env_path": self.env_path,
            "override_path": self.override_path,
            "secrets_file": self.secrets_file,
            "images": {},
            "pending": False,
        }
        for name in (
            "unknown_keys",
            "carried_unknown",
            "replaced_defaults",
            "generated_secrets",
            "profiles",
            "services",
        ):
            found[name] = []
        if self.module.params["state"] == "absent":
            self._remove()
        else:
            found.update(self._present())
        return {**found, "changed": self.changed, "diff": self.diff}

    def _present(self) -> dict[str, Any]:
        overrides = env.check_overrides({**self._adopted(), **self.module.params["overrides"]})
        laid_over = [*self.settings["compose_fragments"], self.settings["compose_override"]]
        self._hide(env.sensitive_values(overrides) | _sensitive_leaves(laid_over))
        for name in ("marketplace_url", "plugin_index", "plugin_index_args"):
            self._hide(logins(self.settings[name] or ""))
        if not self.store.is_complete(self.tag):
            if self.module.check_mode:
                # Nothing to read yet: the release itself is only announced.
                self.changed = True
                return {"unknown_keys": []}
            raise env.EnvError(
                f"Dify {self.tag} is not complete in {self.folder}. Run llmops.stack.dify_release first."
            )
        if not release.HAS_YAML:
            self.module.fail_json(msg=missing_required_lib("PyYAML"), exception=release.YAML_IMPORT_ERROR)
        known = self._load_secrets(overrides)
        self._hide(set(known.values()))
        files = self._release()
        settings = {**self.settings, "own_migration": self._own_migration(overrides)}
        rendered = env.render(files, overrides, known, settings, self.module.params["url"])
        self._hide(set(rendered.secrets.values()))
        for warning in rendered.warnings:
            self.module.warn(warning)
        services = override.active_services(files.compose, rendered.profiles)
        self._check_mounts(files.compose, services)
        if "plugin_daemon" in services:
            self._check_wheels()
        self._carry_certificates()
        additions = self._override(files, overrides, rendered)
        self._note_migration(bool(settings["own_migration"]))
        self._write(known, rendered, additions)
        whole = override.merge(files.compose, additions)
        services = override.active_services(whole, rendered.profiles)
        return {
            "unknown_keys": rendered.unknown_keys,
            "carried_unknown": self._known_elsewhere(rendered.unknown_keys),
            "replaced_defaults": rendered.replaced_defaults,
            "generated_secrets": sorted(set(rendered.secrets) - set(known) - {UNTRIED}),
            "profiles": rendered.profiles,
            "services": services,
            "images": override.images(whole, services),
            "pending": self.unapplied or os.path.exists(self.pending_path),
        }

    def _own_migration(self, overrides: Mapping[str, str]) -> bool:
        """Whether this release's database is migrated for it, now or by the run that noted it."""
        wanted = self.settings["own_migration"] or os.path.exists(self.migrated_path)
        elsewhere = overrides.get("DB_HOST", "") not in ("", *env.DATABASE_SERVICES)
        return bool(wanted and (elsewhere or _listing(os.path.join(self.store.volumes, "db", "data"))))

    def _note_migration(self, own: bool) -> None:
        """A note of this module to itself: what it changes is in the .env."""
        if own == os.path.exists(self.migrated_path) or self.module.check_mode:
            return
        if not own:
            os.unlink(self.migrated_path)
            return
        with self.store.room():
            release.write_atomically(self.migrated_path, "", 0o600)

    def _adopted(self) -> dict[str, Any]:
        """What an installation that was set up by hand had set before it was taken over."""
        text = _read(self.adopted_file)
        try:
            found = json.loads(text or "{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise env.EnvError(
                f"{self.adopted_file} is damaged: it must be a JSON object. Restore it from a backup, or remove it and "
                "set in dify_env what is to stay."
            )
        return found

    def _hide(self, values: set[str]) -> None:
        """Nothing that Ansible prints, logs or returns may show these, not even the options of this call."""
        self.module.no_log_values.update(values - env.PUBLISHED)

    def _load_secrets(self, overrides: Mapping[str, str]) -> dict[str, str]:
        try:
            with open(self.secrets_file, encoding="utf-8") as file:
                kept = json.load(file)
        except FileNotFoundError:
            self._refuse_lost_secrets(overrides)
            return {}
        except ValueError:
            kept = None
        if not isinstance(kept, dict) or not all(isinstance(value, str) for value in kept.values()):
            raise env.EnvError(
                f"{self.secrets_file} is damaged: it must be a JSON object of texts. It was left as it is; restore it "
                "from a backup."
            )
        return kept

    def _refuse_lost_secrets(self, overrides: Mapping[str, str]) -> None:
        """A new password would lock Dify out of its database, a new key out of every credential that is in it."""
        given = {secret.name for secret in env.SECRETS if any(overrides.get(key) for key in secret.keys)}
        missing = [name for name in ("DB_PASSWORD", "SECRET_KEY") if name not in given]
        for name in ("db", "mysql") if missing else ():
            database = os.path.join(self.store.volumes, name, "data")
            if _listing(database):
                raise env.EnvError(
                    f"{self.secrets_file} is gone, and {database} holds a database that needs what was in it. Restore "
                    f"the file from a backup, or set {' and '.join(missing)} in dify_env to the values in use."
                )

    def _release(self) -> env.Release:
        compose_path = os.path.join(self.folder, release.COMPOSE_FILE)
        compose_text = _read(compose_path)
        return env.Release(
            compose_text=compose_text,
            compose=release.load_compose(compose_text, compose_path),
            template=_read(os.path.join(self.folder, ".env.example")),
            examples=_examples(self.folder),
        )

    def _carry_certificates(self) -> None:
        """What an operator put into the release that runs here, for HTTPS; a new one ships none. A first try of an
        upgrade may have left some that were renewed since, so the later one counts."""
        current, place = self.store.current(), os.path.join("nginx", "ssl")
        if current in ("", self.tag):
            return
        shipped = self.store.marker(self.tag)["files"]
        for name in _listing(os.path.join(self.store.path(current), place)):
            source = os.path.join(self.store.path(current), place, name)
            target = os.path.join(self.folder, place, name)
            if os.path.join(place, name) in shipped or not os.path.isfile(source) or not _is_later(source, target):
                continue
            self.changed = True
            if not self.module.check_mode:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with self.store.room():
                    shutil.copy2(source, f"{target}.new")  # with its time
                    seen = os.stat(source)
                    os.chown(f"{target}.new", seen.st_uid, seen.st_gid)
                    os.replace(f"{target}.new", target)

    def _mounted_files(self) -> dict[str, str]:
        """Sums of the release's files as they are now, and of certificates that the operator put beside them."""
        names = {name for name in self.store.marker(self.tag)["files"] if not name.startswith(release.SHIPPED_VOLUMES)}
        certificates = os.path.join("nginx", "ssl")
        names.update(os.path.join(certificates, name) for name in _listing(os.path.join(self.folder, certificates)))
        return {name: release.sha256_of(os.path.join(self.folder, name)) for name in names}

    def _check_mounts(self, compose: Mapping[str, Any], services: list[str]) -> None:
        missing = override.missing_files(compose, services, self.store.marker(self.tag)["files"])
        if missing:
            listed = ", ".join(f"{name} (for {service})" for service, names in missing.items() for name in names)
            raise env.EnvError(
                f"Dify {self.tag} in {self.folder} lacks files that its compose file mounts: {listed}. The archive it "
                "came from was not complete; remove the release (dify_release with state: absent) and take another one."
            )

    def _check_wheels(self) -> None:
        folder = self.settings["plugin_wheels"]
        if not folder or any(name.endswith(".whl") for name in _listing(folder)):
            return
        text = f"plugin_wheels is {folder}, and there are no wheels (*.whl) in such a folder on this host"
        if not self.module.check_mode:
            raise env.EnvError(f"{text}. Copy them there before Dify is deployed, or correct dify_plugin_wheels.")
        self.module.warn(f"{text} yet.")

    def _override(self, files: env.Release, overrides: Mapping[str, str], rendered: env.Rendered) -> dict[str, Any]:
        suffix = ".example"
        wanted: dict[str, Any] = dict(self.settings)
        daemon = {"environment": rendered.daemon_env, "volumes": plugins.mounts(self.settings)}
        wanted.update(
            plugin_daemon={name: value for name, value in daemon.items() if value},
            env=rendered.env,
            profiles=rendered.profiles,
            overrides=overrides,
            files=self._mounted_files(),
            env_files={path[: -len(suffix)]: env.parse_env(text) for path, text in files.examples.items()},
        )
        return override.render_override(files.compose, wanted)

    def _known_elsewhere(self, unknown: list[str]) -> list[str]:
        found: set[str] = set()
        if unknown:
            for tag in _listing(self.store.releases):
                folder = self.store.path(tag)
                if tag.startswith(".") or tag == self.tag or not self.store.is_complete(tag):
                    continue
                compose_text = _read(os.path.join(folder, release.COMPOSE_FILE))
                template = _read(os.path.join(folder, ".env.example"))
                other = env.Release(compose_text, {}, template, _examples(folder))
                found |= env.known_keys(other).intersection(unknown)
        return sorted(found)

    def _write(self, known: Mapping[str, str], rendered: env.Rendered, laid_over: Mapping[str, Any]) -> None:
        # The secrets come first: with a .env that was written and secrets that were not, the next run makes others.
        secrets = json.dumps(rendered.secrets, indent=1, sort_keys=True) + "\n"
        old = "" if not known else json.dumps(dict(known), indent=1, sort_keys=True) + "\n"
        if self._put(self.secrets_file, old, secrets):
            before, after = (
                json.dumps(dict.fromkeys(sorted(one), "(hidden)"), indent=1) for one in (known, rendered.secrets)
            )
            self._show(self.secrets_file, before, after)
        hidden = set(rendered.secrets.values()) | set(known.values())
        old_override, new_override = _read(self.override_path), _override_text(laid_over)
        old = _read(self.env_path)
        self.unapplied = (old, old_override) != (rendered.text, new_override)
        if self.unapplied and not self.module.check_mode:
            # Before the first of the two: whatever is interrupted from here on has not reached the containers.
            with self.store.room():
                release.write_atomically(self.pending_path, "", 0o600)
        self._write_keys(plugins.key_files(self.settings) if "plugin_daemon" in laid_over["services"] else {})
        if self._put(self.env_path, old, rendered.text):
            self._show(self.env_path, *env.mask_env(old, rendered.text, hidden))
        if self._put(self.override_path, old_override, new_override):
            masked = (env.mask_text(text, hidden) for text in (old_override, new_override))
            self._show(self.override_path, *masked)

    def _write_keys(self, wanted: Mapping[str, str]) -> None:
        """Public: the daemon reads them as whatever user its image has."""
        if wanted and not self.module.check_mode:
            os.makedirs(self.keys_path, mode=0o755, exist_ok=True)
        for name, text in wanted.items():
            path = os.path.join(self.keys_path, name)
            old = _read(path)
            if self._put(path, old, text, 0o644):
                self._show(path, old, text)
        for name in set(_listing(self.keys_path)).difference(wanted):
            self._drop(os.path.join(self.keys_path, name))
        if not wanted and os.path.isdir(self.keys_path) and not self.module.check_mode:
            os.rmdir(self.keys_path)

    def _put(self, path: str, old: str, new: str, mode: int = 0o600) -> bool:
        """Write the text where it differs, and set the mode where only that does."""
        present = os.path.exists(path)
        if present and old == new and os.stat(path).st_mode & 0o777 == mode:
            return False
        self.changed = True
        if not self.module.check_mode:
            with self.store.room():
                release.write_atomically(path, new, mode)
        return True

    def _show(self, path: str, before: str, after: str) -> None:
        self.diff.append({"before_header": path, "after_header": path, "before": before, "after": after})

    def _remove(self) -> None:
        for path in (self.env_path, self.override_path):
            if os.path.lexists(path):
                self._drop(path)
        self._write_keys({})

    def _drop(self, path: str) -> None:
        self.changed = True
        self._show(path, "present\n", "absent\n")
        if not self.module.check_mode:
            os.unlink(path)


def _override_text(laid_over: Mapping[str, Any]) -> str:
    return _OVERRIDE_HEAD + str(yaml.safe_dump(dict(laid_over), sort_keys=False, width=120))


def _is_later(source: str, target: str) -> bool:
    """Whether the one is another file than the other, and was written after it."""
    if not os.path.lexists(target):
        return True
    if not os.path.isfile(target) or os.stat(source).st_mtime_ns <= os.stat(target).st_mtime_ns:
        return False
    return release.sha256_of(source) != release.sha256_of(target)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _listing(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _examples(folder: str) -> dict[str, str]:
    found = {}
    for place, _folders, names in os.walk(os.path.join(folder, "envs")):
        for name in names:
            path = os.path.join(place, name)
            if name.endswith(".env.example"):
                found[os.path.relpath(path, folder)] = _read(path)
    return dict(sorted(found.items()))


def _sensitive_leaves(tree: Any) -> set[str]:
    if isinstance(tree, Mapping):
        leaves = env.sensitive_values({str(key): str(value) for key, value in tree.items() if isinstance(value, str)})
        return leaves.union(*(_sensitive_leaves(value) for value in tree.values()))
    if isinstance(tree, list):
        pairs = dict(str(item).split("=", 1) for item in tree if isinstance(item, str) and "=" in item)
        return env.sensitive_values(pairs).union(*(_sensitive_leaves(item) for item in tree))
    return set()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "default": "/opt/dify"},
            "version": {"type": "str", "required": True},
            "url": {"type": "str", "default": ""},
            "overrides": {"type": "dict", "default": {}},
            "settings": {
                "type": "dict",
                "default": {},
                "apply_defaults": True,
                "options": {
                    "cpus": {"type": "int", "default": 0},
                    "memory_mb": {"type": "int", "default": 0},
                    "http_port": {"type": "int", "default": 80},
                    "https_port": {"type": "int", "default": 443},
                    "bind_address": {"type": "str", "default": ""},
                    "plugin_daemon_port": {"type": "int", "default": 5002},
                    "api_workers": {"type": "int", "default": 0},
                    "api_connections": {"type": "int", "default": 0},
                    "celery_workers": {"type": "int", "default": 0},
                    "registry": {"type": "str", "default": ""},
                    "log_max_size": {"type": "str", "default": "50m"},
                    "log_max_file": {"type": "int", "default": 3},
                    "admin_password": {"type": "str", "default": "", "no_log": True},
                    "marketplace_url": {"type": "str", "default": ""},
                    "plugin_index": {"type": "str", "default": ""},
                    "plugin_index_args": {"type": "str", "default": ""},
                    "plugin_wheels": {"type": "path"},
                    "plugin_signatures": {"type": "bool", "default": True},
                    "plugin_public_keys": {"type": "list", "elements": "str", "default": []},
                    "own_migration": {"type": "bool", "default": False},
                    "plugin_max_mb": {"type": "int", "default": 0},
                    "compose_fragments": {"type": "list", "elements": "dict", "default": []},
                    "compose_override": {"type": "dict", "default": {}},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        # Ansible would log the options, and with them the operator's passwords, before the first line of this module.
        no_log=True,
        supports_check_mode=True,
    )
    try:
        result = DifyEnv(module).run()
    except (env.EnvError, release.ReleaseError, override.FragmentError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
