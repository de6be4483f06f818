# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles docker and compose decide, from facts alone: their variables, templated without a host."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts, _urls

ROLES = pathlib.Path(__file__).resolve().parents[2] / "roles"
SYSTEMS = {
    "trixie": 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian 13"\n',
    "bookworm": 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
    "noble": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n',
    "mint": 'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n',
    "rocky": 'ID=rocky\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4"\n',
    "rhel": 'ID=rhel\nID_LIKE=fedora\nVERSION_ID="9.4"\n',
    "fedora": "ID=fedora\nVERSION_ID=41\n",
    "amazon": 'ID=amzn\nID_LIKE=fedora\nVERSION_ID="2023"\nPRETTY_NAME="Amazon Linux 2023"\n',
    "arch": "ID=arch\nPRETTY_NAME=Arch\n",
}
DOCKER_PACKAGES = {
    "docker-ce": "1",
    "docker-ce-cli": "1",
    "containerd.io": "1",
    "ca-certificates": "1",
    "iptables": "1",
}

SOURCE: dict[str, Any] = {
    "settings": {
        "types": "deb",
        "uris": "https://download.docker.com/linux/debian",
        "suites": "trixie",
        "components": "stable",
        "architectures": "amd64",
        "signed-by": "/etc/apt/keyrings/docker.asc",
    },
    "fingerprints": ["9DC858229FC7DD38854AE2D88D81803C0EBFCD88"],
}

Ask = Callable[..., Any]


@pytest.fixture
def bare(tmp_path: pathlib.Path) -> Callable[[str], dict[str, Any]]:
    def bare(system: str) -> dict[str, Any]:
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc/os-release").write_text(SYSTEMS[system])
        facts = _stack_facts.StackFacts(root=str(tmp_path), run=lambda *a, **k: (127, "")).collect()
        facts["os"].update(arch="amd64", machine="x86_64")
        facts["python"]["requests"] = "2.32.3"
        return facts

    return bare


def asker(role: str) -> Ask:
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        variables.update(loader.load_from_file(str(ROLES / role / part / "main.yml"), trusted_as_template=True))

    def ask(name: str, facts: dict[str, Any], **given: Any) -> Any:
        everything = {**variables, **given, "ansible_facts": {"llmops_stack": facts}}
        return Templar(loader=loader, variables=everything).template(trust_as_template("{{ " + name + " }}"))

    return ask


@pytest.fixture(scope="module")
def docker() -> Ask:
    return asker("docker")


@pytest.fixture(scope="module")
def compose() -> Ask:
    ask = asker("compose")
    return lambda name, facts, **given: ask(name, facts, **{"compose_min_version": "2.24.0", **given})


def installed(facts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A host that the role has finished: Docker's own packages on Debian 13, running, configured."""
    repository = {"/etc/apt/sources.list.d/docker.sources": ["https://download.docker.com/linux/debian"]}
    engine = {
        "installed": True,
        "running": True,
        "enabled": True,
        "version": "28.5.2",
        "origin": "docker",
        "packages": DOCKER_PACKAGES,
        "repositories": repository,
        "sources": {"/etc/apt/sources.list.d/docker.sources": SOURCE},
        "data_root": "/var/lib/docker",
    }
    facts["engine"].update({**engine, **changes})
    facts["daemon_json"].update(
        exists=True, content={"live-restore": True, "log-opts": {"max-size": "20m", "max-file": "5"}}
    )
    return facts


def test_a_mirror_that_cannot_be_reached_is_refused_by_who_needs_it(docker: Ask, compose: Ask, bare: Any) -> None:
    facts = bare("trixie")
    facts["mirror"]["error"] = "The mirror is down."
    assert docker("__docker_refusals", facts) == ["The mirror is down."]
    assert compose("__compose_refusals", facts) == ["The mirror is down."]
    assert docker("__docker_refusals", facts, docker_source="none") != ["The mirror is down."]
    assert docker("__docker_refusals", installed(facts)) == []


# -- what is installed, from where --------------------------------------------


@pytest.mark.parametrize(
    ("system", "address", "file"),
    [
        ("trixie", "https://download.docker.com/linux/debian", "docker.sources"),
        ("noble", "https://download.docker.com/linux/ubuntu", "docker.sources"),
        ("mint", "https://download.docker.com/linux/ubuntu", "docker.sources"),
        ("rocky", "https://download.docker.com/linux/centos/9/x86_64/stable", "docker-ce.repo"),
        ("rhel", "https://download.docker.com/linux/rhel/9/x86_64/stable", "docker-ce.repo"),
        ("fedora", "https://download.docker.com/linux/fedora/41/x86_64/stable", "docker-ce.repo"),
    ],
)
def test_repository_of_each_system(docker: Ask, bare: Any, system: str, address: str, file: str) -> None:
    facts = bare(system)
    assert docker("__docker_refusals", facts) == []
    assert docker("__docker_repo_address", facts) == address
    assert docker("__docker_repo_file", facts).endswith(file)
    assert docker("__docker_repo_needed", facts) is True
    assert set(docker("__docker_install_list", facts)) >= {"docker-ce", "docker-ce-cli", "containerd.io"}


def test_one_variable_points_everything_at_a_mirror(docker: Ask, compose: Ask, bare: Any) -> None:
    facts = bare("trixie")
    mirror = {"stack_mirror": "http://mirror.internal:8080/"}
    assert docker("__docker_repo_address", facts, **mirror) == "http://mirror.internal:8080/docker-ce/linux/debian"
    assert docker("docker_registry_mirrors", facts, **mirror) == ["http://mirror.internal:5000"]
    assert docker("docker_insecure_registries", facts, **mirror) == ["mirror.internal:5000"]
    assert docker("docker_insecure_registries", facts, stack_mirror="https://mirror.internal") == []
    assert (
        docker("__docker_nvidia_address", facts, **mirror)
        == "http://mirror.internal:8080/libnvidia-container/stable/deb/amd64"
    )
    assert compose("__compose_url", facts, **mirror) == (
        "http://mirror.internal:8080/github/docker/compose/releases/download/v2.40.3/docker-compose-linux-x86_64"
    )


@pytest.mark.parametrize(
    ("system", "packages"),
    [
        ("trixie", ["docker.io", "docker-cli"]),
        ("bookworm", ["docker.io"]),
        ("noble", ["docker.io"]),
        ("fedora", ["moby-engine"]),
        ("amazon", ["docker"]),
    ],
)
def test_packages_of_the_distribution(docker: Ask, bare: Any, system: str, packages: list[str]) -> None:
    facts = bare(system)
    assert docker("__docker_refusals", facts, docker_source="distro") == []
    assert docker("__docker_engine_packages", facts, docker_source="distro") == packages


def test_support_packages(docker: Ask, bare: Any) -> None:
    facts = bare("trixie")
    facts["security"]["apparmor"] = True
    assert docker("__docker_support_packages", facts) == ["ca-certificates", "iptables", "apparmor"]
    assert docker("__docker_support_packages", facts, docker_source="none") == []


def test_a_pinned_version(docker: Ask, bare: Any) -> None:
    facts = bare("trixie")
    pinned = docker("__docker_install_list", facts, docker_version="28.5.2")
    assert pinned[:3] == ["docker-ce=*28.5.2*", "docker-ce-cli=*28.5.2*", "containerd.io"]
    assert "docker-ce-28.5.2*" in docker("__docker_install_list", bare("rocky"), docker_version="28.5.2")
    done = installed(bare("trixie"))
    assert docker("__docker_install_needed", done, docker_version="28.5.2") is False
    assert docker("__docker_install_needed", done, docker_version="28.5") is False
    assert docker("__docker_install_needed", done, docker_version="28.5.20") is True


# -- a finished host ----------------------------------------------------------


def test_a_finished_host_needs_nothing(docker: Ask, bare: Any) -> None:
    facts = installed(bare("trixie"))
    for decision in ("__docker_install_needed", "__docker_daemon_needed"):
        assert docker(decision, facts) is False, decision
    assert docker("__docker_users_missing", facts) == []


@pytest.mark.parametrize(
    "given",
    [
        {"docker_repo_channel": "test"},
        {"docker_repo_url": "https://mirror.example.com"},
        {"docker_repo_key_fingerprint": "0" * 40},
    ],
    ids=str,
)
def test_another_repository_is_noticed(docker: Ask, bare: Any, given: dict[str, Any]) -> None:
    assert docker("__docker_repo_needed", installed(bare("trixie")), **given) is True


def test_a_repository_that_is_not_as_it_was(docker: Ask, bare: Any) -> None:
    key = "9dc8 5822 9fc7 dd38 854a e2d8 8d81 803c 0ebf cd88"
    assert docker("__docker_repo_needed", installed(bare("trixie")), docker_repo_key_fingerprint=key) is False
    file = "/etc/apt/sources.list.d/docker.sources"
    lost = {**SOURCE, "fingerprints": []}
    upgraded = {**SOURCE, "settings": {**SOURCE["settings"], "suites": "bookworm"}}
    for source in (lost, upgraded):
        assert docker("__docker_repo_needed", installed(bare("trixie"), sources={file: source})) is True


def test_a_mirror_with_a_login_settles(docker: Ask, bare: Any) -> None:
    mirror = {"docker_repo_url": "https://me:pa@55@mirror.example.com/docker-ce"}
    shown = "https://***@mirror.example.com/docker-ce/linux/debian"
    source = {**SOURCE, "settings": {**SOURCE["settings"], "uris": shown}}
    done = installed(bare("trixie"), sources={"/etc/apt/sources.list.d/docker.sources": source})
    assert docker("__docker_repo_needed", done, **mirror) is False
    rocky = bare("rocky")
    base = shown.replace("debian", "centos/9/x86_64/stable")
    settings = {"baseurl": base, "gpgkey": "file:///etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce", "gpgcheck": "1"}
    key = {"settings": settings, "fingerprints": ["060A61C51B558A7F742B77AAC52FEB6B621E9F35"]}
    rocky["engine"]["sources"] = {"/etc/yum.repos.d/docker-ce.repo": key}
    assert docker("__docker_repo_needed", rocky, **mirror) is False


def test_no_login_of_a_mirror_on_the_screen(compose: Ask, bare: Any) -> None:
    given = {"compose_download_url": "https://t0ken@mirror.example.com/x", "compose_version": "9.9.9"}
    shown = compose("__compose_url_shown", bare("trixie"), **given)
    assert shown == "https://***@mirror.example.com/x/v9.9.9/docker-compose-linux-x86_64"
    assert "t0ken" not in str(compose("__compose_binary_refusals", bare("trixie"), **given))
    assert "t0ken" in compose("__compose_url", bare("trixie"), **given)


@pytest.mark.parametrize(
    "setting",
    [
        {"docker_registry_mirrors": ["https://m"]},
        {"docker_insecure_registries": ["m:5000"]},
        {"docker_log_max_size": "50m"},
        {"docker_log_max_file": 9},
        {"docker_live_restore": False},
        {"docker_data_root": "/data"},
        {"docker_address_pools": [{"base": "10.0.0.0/8", "size": 24}]},
        {"docker_proxies": {"http_proxy": "http://p"}},
        {"docker_proxies": {"http_proxy": "http://u:p@p"}},
        {"docker_cgroup_driver": "systemd"},
        {"docker_nvidia": True},
        {"docker_daemon_config": {"debug": True}},
        {"docker_daemon_config": {"log-opts": {"max-size": "1m"}}},
        {"docker_daemon_config": {"live-restore": None}},
    ],
    ids=str,
)
def test_every_setting_is_noticed_and_then_settled(docker: Ask, bare: Any, setting: dict[str, Any]) -> None:
    from ansible_collections.llmops.stack.plugins.module_utils import _docker_daemon as rules

    facts = installed(bare("trixie"))
    assert docker("__docker_daemon_needed", facts, **setting) is True
    found = facts["daemon_json"]["content"]
    config = rules.with_proxies(docker("__docker_config", facts, **setting), setting.get("docker_proxies", {}))
    after = rules.wanted_config(found, config, docker("__docker_baseline", facts, **setting))
    facts["daemon_json"]["content"] = _urls.mask_urls(after)
    secret = "@" in str(setting)  # a password cannot be compared from afar, so the module is asked every time
    assert docker("__docker_daemon_needed", facts, **setting) is secret or setting == {
        "docker_daemon_config": {"live-restore": None}
    }


def test_the_operators_own_file_outranks_the_baseline(docker: Ask, bare: Any) -> None:
    facts = installed(bare("trixie"))
    facts["daemon_json"]["content"] = {"log-driver": "journald", "live-restore": False}
    assert docker("__docker_daemon_needed", facts) is False
    facts["daemon_json"]["content"] = {
        "log-opts": {"max-size": "1g", "max-file": "1"},
        "live-restore": False,
        "bip": "10.1.1.1/24",
    }
    assert docker("__docker_daemon_needed", facts) is False


def test_first_class_variables_yield_to_the_raw_dictionary(docker: Ask, bare: Any) -> None:
    config = docker(
        "__docker_config",
        bare("trixie"),
        docker_log_max_size="1m",
        docker_daemon_config={"log-opts": {"max-size": "2m", "tag": "x"}},
    )
    assert config["log-opts"] == {"max-size": "2m", "tag": "x"}


def test_cgroup_driver_keeps_other_exec_opts(docker: Ask, bare: Any) -> None:
    facts = bare("trixie")
    facts["daemon_json"]["content"] = {"exec-opts": ["native.cgroupdriver=cgroupfs", "other=1"]}
    assert docker("__docker_config", facts, docker_cgroup_driver="systemd") == {
        "exec-opts": ["other=1", "native.cgroupdriver=systemd"]
    }


@pytest.mark.parametrize("trouble", [{"running": False}, {"enabled": False}])
def test_an_engine_that_does_not_run_or_is_not_enabled(docker: Ask, bare: Any, trouble: dict[str, Any]) -> None:
    facts = installed(bare("trixie"), **trouble)
    facts["systemd"] = True
    assert docker("__docker_daemon_needed", facts) is True
    assert docker("__docker_daemon_needed", facts, docker_source="none") is False


def test_a_change_that_the_engine_was_never_told_of(docker: Ask, bare: Any) -> None:
    facts = installed(bare("trixie"))
    facts["daemon_json"]["pending"] = "restart"
    assert docker("__docker_daemon_needed", facts) is True


# -- GPUs ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "driver", "wanted"),
    [
        ("auto", "nvidia", True),
        ("auto", "", False),
        ("auto", None, False),
        (True, None, True),
        (False, "nvidia", False),
        ("false", "nvidia", False),
    ],
)
def test_the_toolkit_follows_the_driver(docker: Ask, bare: Any, setting: Any, driver: str | None, wanted: bool) -> None:
    facts = installed(bare("trixie"))
    if driver is not None:
        facts["gpus"] = [{"vendor": "nvidia", "pci": "", "device": "", "driver": driver, "nodes": []}]
    assert docker("__docker_nvidia_wanted", facts, docker_nvidia=setting) is wanted
    assert ("nvidia-container-toolkit" in docker("__docker_missing", facts, docker_nvidia=setting)) is wanted
    assert docker("__docker_nvidia_repo_needed", facts, docker_nvidia=setting) is wanted
    facts["engine"]["sources"]["/etc/apt/sources.list.d/nvidia-container-toolkit.sources"] = {
        "settings": {
            "uris": "https://nvidia.github.io/libnvidia-container/stable/deb/amd64",
            "suites": "/",
            "signed-by": "/etc/apt/keyrings/nvidia-container-toolkit.asc",
        },
        "fingerprints": ["C95B321B61E88C1809C4F759DDCAE044F796ECB0"],
    }
    assert docker("__docker_nvidia_repo_needed", facts, docker_nvidia=setting) is False
    assert ("runtimes" in docker("__docker_config", facts, docker_nvidia=setting)) is wanted


# -- refusals -----------------------------------------------------------------


def test_unsupported_systems(docker: Ask, bare: Any) -> None:
    (sentence,) = docker("__docker_refusals", bare("arch"))
    assert "Arch" in sentence
    assert "docker_source: none" in sentence
    (sentence,) = docker("__docker_refusals", bare("amazon"))
    assert "Docker publishes no packages for Amazon Linux 2023" in sentence
    (sentence,) = docker("__docker_refusals", bare("rocky"), docker_source="distro")
    assert "docker_source: docker" in sentence


def test_conflicting_packages(docker: Ask, bare: Any) -> None:
    facts = installed(bare("trixie"), packages={"docker.io": "1", "runc": "1"}, origin="distro", repositories={})
    (sentence,) = docker("__docker_refusals", facts)
    assert "docker.io, runc" in sentence
    assert "docker_source: distro" in sentence
    assert "docker_conflicts: remove" in sentence
    assert docker("__docker_refusals", facts, docker_conflicts="remove") == []
    assert docker("__docker_refusals", facts, docker_source="distro") == []
    assert docker("__docker_conflicting", facts, docker_source="distro") == []


def test_a_second_source_for_the_same_repository(docker: Ask, bare: Any) -> None:
    facts = bare("trixie")
    facts["engine"]["repositories"] = {
        "/etc/apt/sources.list.d/docker.list": ["https://download.docker.com/linux/debian"]
    }
    (sentence,) = docker("__docker_refusals", facts)
    assert "docker.list" in sentence
    assert docker("__docker_refusals", facts, docker_conflicts="remove") == []
    assert docker("__docker_conflicting_files", facts) == ["/etc/apt/sources.list.d/docker.list"]


@pytest.mark.parametrize(
    ("changes", "given", "words"),
    [
        (
            {"running": False, "error": "/run/docker.sock is there, but nothing listens on it"},
            {"docker_source": "none"},
            "does not run",
        ),
        ({"installed": False, "running": False}, {"docker_source": "none"}, "there is no Docker Engine"),
        ({"origin": "unknown", "packages": {}, "path": "/opt/dockerd"}, {}, "/opt/dockerd belongs to no package"),
        (
            {"containers": {"total": 4, "running": 0}},
            {"docker_data_root": "/data"},
            "holds 4 containers in /var/lib/docker",
        ),
        ({"swarm": True}, {"docker_live_restore": True}, "cannot have live-restore"),
        ({"error": "no permission to ask /run/docker.sock; run the play with become"}, {}, "become"),
    ],
)
def test_refusals(docker: Ask, bare: Any, changes: dict[str, Any], given: dict[str, Any], words: str) -> None:
    sentences = docker("__docker_refusals", installed(bare("trixie"), **changes), **given)
    assert any(words in sentence for sentence in sentences)


def test_a_broken_file_is_named_with_its_position(docker: Ask, bare: Any) -> None:
    facts = installed(bare("trixie"))
    facts["daemon_json"].update(valid=False, content={}, error="line 3, column 7: Expecting value")
    (sentence,) = docker("__docker_refusals", facts)
    assert "/etc/docker/daemon.json is not valid JSON (line 3, column 7" in sentence


# -- Compose ------------------------------------------------------------------

APT_POLICY = """docker-compose-v2:
  Installed: (none)
  Candidate: 2.24.6+ds1-0ubuntu1~22.04.1
  Version table:
     2.24.6+ds1-0ubuntu1~22.04.1 500
docker-compose:
  Installed: (none)
  Candidate: 1.29.2-1
"""


def with_compose(facts: dict[str, Any], origin: str = "docker", **compose: str) -> dict[str, Any]:
    facts["engine"]["origin"] = origin
    facts["compose"].update(compose)
    return facts


@pytest.mark.parametrize(
    ("version", "needed"), [("", True), ("2.23.9", True), ("2.24.0", False), ("2.40.3", False), ("5.0.1", False)]
)
def test_new_enough_is_left_alone(compose: Ask, bare: Any, version: str, needed: bool) -> None:
    assert compose("__compose_needed", with_compose(bare("trixie"), version=version)) is needed


@pytest.mark.parametrize(
    ("system", "stdout", "package"),
    [
        ("noble", APT_POLICY, "docker-compose-v2"),
        ("bookworm", APT_POLICY.split("docker-compose:")[1].replace("\n  ", "docker-compose:\n  ", 1), ""),
        (
            "trixie",
            "docker-compose-plugin:\n  Installed: (none)\n  Candidate: 5:2.40.3-1~debian.13~trixie\n",
            "docker-compose-plugin",
        ),
        ("trixie", "docker-compose-plugin:\n  Installed: (none)\n  Candidate: (none)\n", ""),
        ("trixie", "", ""),
        ("rocky", "docker-compose-plugin 2.40.3\n", "docker-compose-plugin"),
        ("rocky", "docker-compose-plugin 2.6.0\n", ""),
    ],
)
def test_the_package_that_is_new_enough(compose: Ask, bare: Any, system: str, stdout: str, package: str) -> None:
    facts = with_compose(bare(system), origin="distro")
    assert compose("__compose_package", facts, __compose_policy={"stdout": stdout}) == package


def test_a_package_that_would_stay_hidden_is_not_asked_for(compose: Ask, bare: Any) -> None:
    facts = with_compose(bare("trixie"), version="2.20.0", path="/usr/local/lib/docker/cli-plugins/docker-compose")
    assert compose("__compose_ask_packages", facts) is False
    assert (
        compose("__compose_ask_packages", with_compose(bare("trixie"), version="2.20.0", path="/usr/libexec/x")) is True
    )
    assert compose("__compose_ask_packages", with_compose(bare("trixie"), origin="unknown")) is False


def test_refusals_of_compose(compose: Ask, bare: Any) -> None:
    old = with_compose(bare("bookworm"), v1_version="1.29.2")
    (sentence,) = compose("__compose_refusals", old, compose_source="none")
    assert "1.29.2" in sentence
    assert "Python" in sentence
    assert compose("__compose_refusals", old) == []
    mine = with_compose(bare("trixie"), version="2.20.0", path="/root/.docker/cli-plugins/docker-compose")
    (sentence,) = compose("__compose_refusals", mine)
    assert "/root/.docker/cli-plugins/docker-compose" in sentence


def test_refusals_of_the_binary(compose: Ask, bare: Any) -> None:
    assert compose("__compose_binary_refusals", bare("trixie")) == []
    (sentence,) = compose("__compose_binary_refusals", bare("trixie"), compose_version="2.30.0")
    assert "compose_checksum" in sentence
    (sentence,) = compose("__compose_binary_refusals", bare("trixie"), compose_min_version="2.99.0")
    assert "2.40.3 is below the 2.99.0" in sentence


def test_checksums_of_the_default(compose: Ask, bare: Any) -> None:
    facts = bare("trixie")
    assert compose("__compose_sha256", facts).startswith("dba9d98e")
    facts["os"].update(arch="arm64", machine="aarch64")
    assert compose("__compose_sha256", facts).startswith("d26373b1")
    assert compose("__compose_sha256", facts, compose_checksum="sha256:ff") == "ff"
    facts["os"].update(arch="riscv64", machine="riscv64")
    assert compose("__compose_sha256", facts) == ""
