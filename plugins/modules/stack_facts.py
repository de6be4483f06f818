#!/usr/bin/python
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_facts
short_description: One look at a host of the LLM stack
version_added: 0.1.0
description:
  - Collects in one execution what every role of the collection decides on. Operating system, CPU, memory, disks, GPUs,
    Docker Engine, Compose, C(daemon.json), listening ports and their owners, Dify's releases and containers, Ollama's
    releases, unit, settings and store.
  - Never fails because something is missing. What cannot be seen is empty, with the reason beside it.
  - Needs nothing but Python on the host and reads the engine through its socket. Passwords in URLs are blanked.
  - Run it with C(become). Without it the owners of ports, the engine's state and what a server was started with stay
    unknown.
  - Starts C(nvidia-smi) only where the kernel shows a device of NVIDIA. Asks Ollama for its version only, and only on
    the host itself.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: N/A
    details:
      - Nothing is ever changed.
  facts:
    description: Action returns an C(ansible_facts) dictionary that will update existing host facts.
    support: full
options:
  paths:
    description:
      - Directories whose file system is measured, besides C(/), O(dify_home), O(ollama_home), O(ollama_models_dir) and
        the engine's data root.
      - A directory that does not exist yet is measured where it would be made.
    type: list
    elements: path
    default: []
  ports:
    description:
      - TCP ports to report if something listens on them.
      - Empty reports every listening or published TCP port.
    type: list
    elements: int
    default: []
  dify_home:
    description: Directory that holds Dify's releases.
    type: path
    default: /opt/dify
  dify_project:
    description: Name of Dify's Compose project.
    type: str
    default: dify
  ollama_home:
    description: Directory that holds Ollama's releases.
    type: path
    default: /opt/ollama
  ollama_models_dir:
    description: Directory that holds, or will hold, Ollama's models.
    type: path
    default: /usr/share/ollama/.ollama/models
  ollama_port:
    description: Port on which Ollama listens.
    type: int
    default: 11434
  ollama_user:
    description: User that runs Ollama. For this one is looked whether it may reach the models.
    type: str
    default: ollama
  traceloop_home:
    description: Directory that holds, or will hold, what makes model calls visible.
    type: path
    default: /opt/traceloop
  stack_mirror:
    description:
      - Address of the host that everything comes from, asked once whether it answers and what it offers. Empty where
        there is none.
    type: str
    default: ""
  deadline:
    description: Seconds that the engine and each program asked may take to answer.
    type: float
    default: 5.0
author:
  - llmops.stack contributors (@llmops)
"""

EXAMPLES = r"""
- name: Look at the host
  llmops.stack.stack_facts:

- name: Say who holds the web port
  ansible.builtin.debug:
    msg: "{{ ansible_facts['llmops_stack'].ports['80'] | default('nobody') }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to C(ansible_facts).
  returned: always
  type: dict
  contains:
    llmops_stack:
      description: What was seen on the host.
      returned: always
      type: dict
      contains:
        os:
          description: >-
            Keys C(family) (C(Debian), C(RedHat) or another name), C(distribution), C(base) (the distribution whose
            packages fit), C(version), C(major), C(codename), C(pretty), C(arch) (C(amd64), C(arm64), ...) and
            C(machine).
          returned: always
          type: dict
          sample: {family: Debian, distribution: debian, base: debian, version: "13", major: "13", codename: trixie,
                   pretty: Debian GNU/Linux 13 (trixie), arch: amd64, machine: x86_64}
        cpu:
          description: Key C(count), the processors this host may use.
          returned: always
          type: dict
          sample: {count: 4}
        memory:
          description: Keys C(total_mb) and C(available_mb).
          returned: always
          type: dict
          sample: {total_mb: 16384, available_mb: 9000}
        disks:
          description: For each path the C(mount) it lives on, C(total_mb) and C(free_mb).
          returned: always
          type: dict
          sample: {/opt/dify: {mount: /, total_mb: 100000, free_mb: 70000}}
        gpus:
          description: >-
            NVIDIA and AMD devices with C(vendor), C(pci), C(device), C(driver) (empty where the kernel loaded none),
            C(nodes), C(name), C(uuid), C(memory_mb) and C(driver_version); what is not known is empty or 0.
          returned: always
          type: list
          elements: dict
          sample: [{vendor: nvidia, pci: "0000:01:00.0", device: "0x2204", driver: nvidia, nodes: [/dev/nvidia0],
                    name: NVIDIA GeForce RTX 3090, uuid: GPU-8f6c, memory_mb: 24576, driver_version: 550.54.14}]
        gpu:
          description: >-
            What computing on a GPU needs. C(nvidia_smi) with C(found), C(rc) (-1 where it was not started) and
            C(error), C(nvidia_driver) (the version that is loaded), C(uvm) (/dev/nvidia-uvm is there), C(kfd) (/dev/kfd
            is there), C(kfd_nodes) (GPUs that ROCm can see), C(render_group) (its number, or -1) and C(jetpack) (5, 6
            or empty).
          returned: always
          type: dict
          sample: {nvidia_smi: {found: true, rc: 0, error: ""}, nvidia_driver: 550.54.14, uvm: true, kfd: false,
                   kfd_nodes: 0, render_group: 105, jetpack: ""}
        security:
          description: Keys C(apparmor) (bool) and C(selinux) (C(enforcing), C(permissive) or C(disabled)).
          returned: always
          type: dict
          sample: {apparmor: true, selinux: disabled}
        systemd:
          description: Whether systemd is the init system that runs.
          returned: always
          type: bool
        python:
          description: >-
            Keys C(requests) and C(yaml), the versions of these libraries for the Python that runs modules, or empty
            strings.
          returned: always
          type: dict
          sample: {requests: "2.32.3", yaml: "6.0.2"}
        engine:
          description: >-
            Docker Engine. C(installed), C(path), C(version), C(running) (it answered), C(enabled), C(origin)
            (C(docker), C(distro), C(unknown) or empty), C(packages), C(repositories) (the addresses in each package
            source of Docker or NVIDIA), C(sources) (for each its C(settings) and the C(fingerprints) of its key file),
            C(cgroup_driver), C(storage_driver), C(data_root), C(live_restore), C(swarm), C(containers),
            C(registry_mirrors), C(insecure_registries), C(runtimes) and C(error).
          returned: always
          type: dict
        compose:
          description: >-
            C(version) and C(path) of the v2 plugin that the Docker CLI would use, C(v1_version) of the old Python
            program.
          returned: always
          type: dict
          sample: {version: "2.40.3", path: /usr/local/lib/docker/cli-plugins/docker-compose, v1_version: ""}
        daemon_json:
          description: >-
            C(exists), C(valid), C(content) with passwords in URLs blanked, C(error) with the position, and C(pending)
            (C(restart) or C(reload) where a change has landed that the engine was never told of).
          returned: always
          type: dict
        docker_group:
          description: Members of the group C(docker).
          returned: always
          type: list
          elements: str
        ports:
          description: For each TCP port that is taken, C(pid), C(process), C(container) and C(unit), its service.
          returned: always
          type: dict
          sample: {"80": {pid: 812, process: docker-proxy, container: dify-nginx-1, unit: docker.service}}
        dify:
          description: >-
            C(home), C(current) (the release that runs), C(releases) with C(complete) and C(checksum) for each tag,
            C(data) (whether a Dify has worked there, wherever its database is), C(upgrade) (the last one by its
            journal, with C(id), C(from), C(to), C(phase), C(step), C(message), C(folder) and C(backup); in the phases
            C(running), C(rolling_back) and C(proved) it is not over), C(restore) (the backup whose restore was begun
            and is not finished), C(backup_schedule) (when the timer makes backups), and C(containers) with C(name),
            C(service), C(image), C(state), C(health), C(exit_code) and C(restarts).
          returned: always
          type: dict
        ollama:
          description: What is installed, what the files say and what runs.
          returned: always
          type: dict
          contains:
            home:
              description: Directory that holds the releases.
              returned: always
              type: str
            installed:
              description: Whether the host has a unit or a container that is meant to serve.
              returned: always
              type: bool
            version:
              description: Version of the program on the path, or empty.
              returned: always
              type: str
              sample: "0.32.15"
            server:
              description: Version that the server on O(ollama_port) states, empty where none answers in a second.
              returned: always
              type: str
              sample: "0.32.15"
            active:
              description: Whether the service runs.
              returned: always
              type: bool
            enabled:
              description: Whether it is started at a boot.
              returned: always
              type: bool
            pid:
              description: Main process of the service, or 0.
              returned: always
              type: int
            current:
              description: Version that the link C(current) points to.
              returned: always
              type: str
            link:
              description: Where the link C(/usr/local/bin/ollama) points to, empty where it is none.
              returned: always
              type: str
              sample: /opt/ollama/current/bin/ollama
            releases:
              description: For each version C(complete), C(checksums) of its archives and C(overlays).
              returned: always
              type: dict
              sample: {"0.32.15": {complete: true, checksums: {ollama-linux-amd64.tar.zst: 9f86d081}, overlays: []}}
            unit:
              description: >-
                The service's files. C(exists), C(path), C(masked), C(ours) (written by this collection), C(edited) (and
                changed since), C(environment) (what it and its drop-ins set), C(overrides) (what other drop-ins set
                that wins over ours), C(overridden_in) (the file that each of these is from), C(models_dir) and
                C(has_models) of its store, C(pending) (names of settings with which the server was not started yet),
                C(reload) (systemd has not read the files yet), C(guarded) (it does not start without our firewall
                rules) and C(writable) (below which folders it may write).
              returned: always
              type: dict
            way_back:
              description: >-
                What a run noted before it changed the server, and was ended before it could forget. C(version),
                C(current) (link) and C(url) of what served, and C(files) that were there. Mostly empty.
              returned: always
              type: dict
            files:
              description: For each file that this collection writes C(sha256), empty where it is not there.
              returned: always
              type: dict
              sample: {/etc/systemd/system/ollama.service: {sha256: 9f86d081}}
            dropins:
              description: Names of the other drop-ins of the service.
              returned: always
              type: list
              elements: str
              sample: [override.conf]
            running_env:
              description: Settings that the server was started with; logins and secrets are blanked.
              returned: always
              type: dict
              sample: {OLLAMA_HOST: "0.0.0.0:11434"}
            user:
              description: Keys C(name), C(exists), C(uid), C(gid), C(group) and C(home) of O(ollama_user).
              returned: always
              type: dict
            models_dir:
              description: >-
                C(path), C(realpath) (where its links lead), C(exists), C(owner), C(group), C(mode), C(has_models) and
                C(blocked) (the first directory above it that O(ollama_user) may not pass through, or empty).
              returned: always
              type: dict
              sample: {path: /srv/models, realpath: /data/models, exists: true, owner: ollama, group: ollama,
                       mode: "0755", has_models: true, blocked: ""}
            store:
              description: >-
                What lies in O(ollama_models_dir) at first sight, without a look into large files but for their first
                keys. C(models) by their names, with C(digest) (of the manifest), C(content) (equal for the same model,
                also where a server wrote its manifest anew), C(whole) (all blobs are there in full length), C(weights)
                (their bytes), C(num_ctx) and C(shape) (as M(llmops.stack.ollama_manifest) returns them); C(blobs) of 1
                MiB and more; and C(partial), the bytes that an unfinished pull has brought, by blob.
              returned: always
              type: dict
              sample: {models: {"deepseek-r1:1.5b": {digest: e0979632db5a, content: 0f0c4e1ab3d2, whole: true,
                       weights: 1117320512, num_ctx: 0, shape: {architecture: qwen2, block_count: 28}}},
                       blobs: [aabd4debf0c8], partial: {}}
            zstd:
              description: Whether the program C(zstd) is there.
              returned: always
              type: bool
            nft:
              description: Whether the program C(nft) is there.
              returned: always
              type: bool
            firewall:
              description: >-
                Whether C(firewalld) and C(ufw) are active, C(table) (the digest of the rules in our nftables table, or
                empty), whether our own service is C(enabled), and whom its rules have C(let_in), as C(addresses) and
                C(interfaces).
              returned: always
              type: dict
              sample: {firewalld: false, ufw: false, table: 9f86d081884c, enabled: true,
                       let_in: {addresses: [192.0.2.9], interfaces: ["br-*"]}}
            metrics:
              description: Whether the program that serves Ollama's figures is C(active) and C(enabled).
              returned: always
              type: dict
              sample: {active: true, enabled: true}
            container:
              description: >-
                C(name), C(image), C(running) and C(stamp) (its label C(llmops.stamp)) of the container in which Ollama
                was installed, the one of the Compose project C(llmops-ollama) with its files in O(ollama_home).
              returned: always
              type: dict
              sample: {name: llmops-ollama-ollama-1, image: "ollama/ollama:0.32.15", running: true, stamp: 1f0c9a5b7d3e}
        gateway:
          description: >-
            The gateway of role C(llmops.stack.gateway). C(program) (HAProxy, empty where it is not there), C(files) of
            the role with their C(sha256), C(active), C(enabled) and C(reload) of its service, and C(firewall) with the
            mark of the loaded rules as C(table) and C(enabled).
          returned: always
          type: dict
          sample: {program: /usr/sbin/haproxy, files: {/etc/systemd/system/llmops-gateway.service: {sha256: 9f86d081}},
                   active: true, enabled: true, reload: false, firewall: {table: 1f0c9a5b7d3e, enabled: true}}
        mirror:
          description: >-
            The mirror as the host sees it. C(url); C(error), a sentence where it cannot be used, and C(wrong) where
            that is because of what O(stack_mirror) says; C(here), whether this host is the mirror; and C(apt), the
            C(path) of the settings by which apt follows it, what is C(wanted) in it, and whether a change is C(due).
          returned: always
          type: dict
          sample: {url: "http://mirror.internal", here: false, error: "", wrong: false,
                   apt: {path: /etc/apt/apt.conf.d/99llmops-mirror, wanted: "", due: false}}
        traceloop:
          description: >-
            Key C(present), whether O(traceloop_home) is there and was made by M(llmops.stack.file_tree).
          returned: always
          type: dict
          sample: {present: true}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.stack.plugins.module_utils._stack_facts import StackFacts


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "dify_home": {"type": "path", "default": "/opt/dify"},
            "dify_project": {"type": "str", "default": "dify"},
            "ollama_home": {"type": "path", "default": "/opt/ollama"},
            "ollama_models_dir": {"type": "path", "default": "/usr/share/ollama/.ollama/models"},
            "ollama_port": {"type": "int", "default": 11434},
            "ollama_user": {"type": "str", "default": "ollama"},
            "traceloop_home": {"type": "path", "default": "/opt/traceloop"},
            "stack_mirror": {"type": "str", "default": ""},
            "deadline": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, ansible_facts={"llmops_stack": StackFacts(**module.params).collect()})


if __name__ == "__main__":
    main()
