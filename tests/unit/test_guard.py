# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A port that only some may reach: the rules, and the script that the host's own firewalls are told by."""

from __future__ import annotations

import hashlib
import pathlib
import re
import subprocess
from typing import Any

import jinja2
import pytest
from ansible_collections.llmops.stack.plugins.module_utils._guard import changes, files, left_open, let_in, places

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "roles" / "guard" / "templates" / "openings.sh.j2"
LOADED = {"table": "", "enabled": False, "ufw": False, "firewalld": False}


def guard(*addresses: str, interfaces: tuple[str, ...] = ()) -> dict[str, Any]:
    let_in = {"addresses": list(addresses), "interfaces": list(interfaces)}
    services = "ollama.service docker.service"
    return {"name": "ollama", "what": "Ollama", "services": services, "home": "/etc/ollama", "let_in": let_in}


def test_the_rules() -> None:
    said = guard("10.0.0.0/8", "fd00::7", interfaces=("br-*",))
    text = files(said, [11434])["/etc/ollama/firewall.nft"]
    assert "tcp dport 11434 jump who" in text
    chain = re.sub(r"\s+", " ", text[text.index("chain who") :])
    accepts, rejected = chain.split("reject with tcp reset")
    sources = ['iifname "lo"', 'iifname "br-*"', "ip saddr 10.0.0.0/8", "ip6 saddr fd00::7"]
    assert re.findall(r"(i[^{]+?) accept", accepts) == sources
    assert "accept" not in rejected
    (mark,) = re.findall(r"chain rules_([0-9a-f]{12}) ", text)
    assert mark == hashlib.sha256(text.replace(mark, "@").encode()).hexdigest()[:12]
    assert "tcp dport { 11434, 11500 } jump who" in files(said, [11434, 11500])["/etc/ollama/firewall.nft"]
    alone = files(guard(), [11434])["/etc/ollama/firewall.nft"]
    assert 'iifname "lo" accept\n        reject with tcp reset' in alone


def test_the_rules_say_whom_they_let_in() -> None:
    said = guard("10.0.0.0/8", "fd00::7", interfaces=("docker0", "br-*"))
    assert let_in(files(said, [11434])["/etc/ollama/firewall.nft"]) == said["let_in"]
    assert let_in("") == {"addresses": [], "interfaces": []}


def test_who_is_not_shut_out_yet() -> None:
    now = guard("10.0.0.5", "10.7.0.0/16", "192.0.2.9", interfaces=("docker0",))["let_in"]
    left = {"addresses": ["10.0.0.5", "10.7.0.0/16"], "interfaces": ["docker0"]}
    assert left_open(now, guard("192.0.2.9")["let_in"]) == left
    assert left_open(now, now) == left_open(let_in(""), now) == {"addresses": [], "interfaces": []}


def test_what_loads_them() -> None:
    rules, unit, dropin = places("ollama", "/etc/ollama")
    texts = files(guard(), [11434])
    assert list(texts) == [rules, unit, dropin]
    assert f'ExecStart=/bin/sh -c "exec nft -f {rules}"' in texts[unit]
    assert "Before=ollama.service docker.service\n" in texts[unit]
    assert texts[dropin].count(f"exec nft -f {rules}") == 3


def test_what_there_is_to_do() -> None:
    said, loaded = guard("10.0.0.1"), {**LOADED, "enabled": True}
    texts = files(said, [11434])
    there = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    loaded["table"] = re.findall(r"chain rules_(\w+) ", next(iter(texts.values())))[0]
    made = changes(loaded, True, said, 11434, there)
    assert (made["firewall"], made["firewall_left"], made["openings"], made["guarded"]) == (False, False, False, True)
    for lack in ({"table": ""}, {"table": "0" * 12}, {"enabled": False}):
        assert changes({**loaded, **lack}, True, said, 11434, there)["firewall"], lack
    for path in there:
        assert changes(loaded, True, said, 11434, {**there, path: "other"})["firewall"], path
    assert changes(loaded, True, said, 11500, there)["firewall"]
    left = changes(loaded, False, said, 11434, there)
    assert (left["firewall"], left["firewall_left"]) == (False, True)
    assert changes(LOADED, False, said, 11434, {})["firewall_left"] is False


def test_what_other_firewalls_are_told() -> None:
    said = guard("10.0.0.1", "fd00::/8", interfaces=("docker0", "br-*"))
    both = {**LOADED, "ufw": True, "firewalld": True}
    wanted = changes(both, True, said, 11434, {})["openings_wanted"]
    to = "to any port 11434 proto tcp"
    sources = ("from 10.0.0.1", "from fd00::/8", "in on docker0", "in on br-+")
    assert wanted["ufw"] == [f"{source} {to}" for source in sources]
    port = 'port port="11434" protocol="tcp" accept'
    assert wanted["firewalld"] == [
        f'rule family="ipv4" source address="10.0.0.1" {port}',
        f'rule family="ipv6" source address="fd00::/8" {port}',
    ]
    assert changes({**both, "ufw": False}, True, said, 11434, {})["openings_wanted"].keys() == {"firewalld"}
    left = {places("ollama", "/etc/ollama").unit: "1f"}
    assert changes(both, False, said, 11434, left)["openings_wanted"] == {"ufw": [], "firewalld": []}


# A firewall for the script: its rules are lines of a file, and what it was called with is another.
UFW = r"""#!/bin/sh
rules=$(dirname "$0")/../rules; touch "$rules"
[ "$1" = --dry-run ] && { dry=1; shift; }
said=$*
case $1 in
delete) grep -vxF "${said#delete allow }" "$rules" >"$rules.new"; mv "$rules.new" "$rules" ;;
allow) rule=${said#allow }; rule=${rule%% comment *}
	if grep -qxF "$rule" "$rules"; then echo 'Skipping adding existing rule'
	elif [ -z "${dry-}" ]; then echo "$rule" >>"$rules"; echo 'Rule added'; fi ;;
esac
"""
FIREWALLD = r"""#!/bin/sh
rules=$(dirname "$0")/../rules; touch "$rules"; where=runtime
for word; do case $word in
--get-active-zones) printf 'public\n  interfaces: eth0\ndocker\n  interfaces: docker0\n'; exit ;;
--get-default-zone) echo public; exit ;;
--permanent) where=permanent ;;
--zone=*) zone=${word#*=} ;;
--*-rich-rule=*) what=${word%%-rich*}; line="$where $zone ${word#*=}" ;;
esac; done
case $what in
--query) grep -qxF -- "$line" "$rules" ;;
--add) echo "$line" >>"$rules" ;;
--remove) grep -vxF -- "$line" "$rules" >"$rules.new"; mv "$rules.new" "$rules" ;;
esac
"""


@pytest.mark.parametrize("firewall", ["ufw", "firewalld"])
def test_openings_are_made_kept_and_closed(tmp_path: pathlib.Path, firewall: str) -> None:
    program = tmp_path / "bin" / {"ufw": "ufw", "firewalld": "firewall-cmd"}[firewall]
    program.parent.mkdir()
    program.write_text({"ufw": UFW, "firewalld": FIREWALLD}[firewall])
    program.chmod(0o755)
    rules = tmp_path / "rules"
    rules.write_text("somebody's own\n")
    script = jinja2.Template(SCRIPT.read_text(), trim_blocks=True)  # as Ansible has it
    active = {**LOADED, firewall: True}

    def run(
        *addresses: str, port: int = 11434, wanted: bool = True, close: bool = False, check: bool = False
    ) -> list[str]:
        """First words of what the script says."""
        said = guard(*addresses)
        left = {places("ollama", "/etc/ollama").unit: "1f"}
        text = script.render(
            item=firewall,
            guard_plan=said,
            guard_openings=changes(active, wanted, said, port, left)["openings_wanted"],
            guard_close=close,
            ansible_check_mode=check,
            __guard_openings_path=str(tmp_path / "etc/openings"),
        )
        path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
        done = subprocess.run(["sh"], input=text, env={"PATH": path}, check=True, text=True, capture_output=True)
        assert done.stderr == ""
        return [line.split()[0] for line in done.stdout.splitlines()]

    two = ("10.0.0.1", "fd00::/8")
    assert run(*two, check=True) == ["opened", "opened"]
    assert rules.read_text() == "somebody's own\n"
    assert run(*two) == ["opened", "opened"]
    assert len(rules.read_text().splitlines()) == {"ufw": 3, "firewalld": 5}[firewall]
    assert run(*two) == []
    assert run(*two, close=True) == []

    assert run("10.0.0.1", port=11500) == ["opened", "stale", "stale"]
    assert run("10.0.0.1", port=11500, close=True, check=True) == ["stale", "stale"]
    assert run("10.0.0.1", port=11500, close=True) == ["closed", "closed"]
    assert "11434" not in rules.read_text()
    assert run("10.0.0.1", port=11500, wanted=False, close=True) == ["closed"]
    assert rules.read_text() == "somebody's own\n"
