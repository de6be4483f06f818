#!/usr/bin/env python3
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The world: an upstream and nodes in containers, for tests and the demo. See README.md beside this file."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _archives
import _inventory
import _models
import _nodes
import _ollama
import _plugins
import _releases
import _repos
import _switch
import _upstream
import _wheels
import images
from _build import Builder
from _engine import docker, inspect, labelled, published_port, require_engine, running
from _gobuild import ensure as ensure_binary
from _images import GoBinary, Image
from _settings import CACHE, INVENTORY, STATE, UPSTREAM, WorldError, node_container, say


def build(options: argparse.Namespace) -> None:
    if options.only:
        builder = Builder([*images.MONITORING, images.CHROMIUM])
        for name in options.only:
            print(builder.ensure(name))
        return
    table = [*_table(options.dify), *_ollama.IMAGES]
    _make(table, Builder(table), nodes=_nodes.SYSTEMS.values())


def up(options: argparse.Namespace) -> None:
    wanted = [_nodes.Node.parse(text) for text in options.node]
    table = [] if options.bare else _table(options.dify)
    ollama = options.ollama or not options.bare
    table += _ollama.IMAGES if ollama else ()
    builder = Builder(table)
    systems = {_nodes.SYSTEMS[node.system] for node in wanted}
    _make(table, builder, nodes=systems, archives=not options.bare, ollama=ollama)
    _upstream.start(builder)
    _upstream.push(table, builder)
    _nodes.ensure(wanted, builder)
    _inventory.write()
    say(f"the world is up; inventory: {INVENTORY}")


def _table(tags: list[str]) -> list[Image]:
    _releases.ensure(tags)
    return [*images.table(tags or None), *images.MONITORING]


def _make(
    table: list[Image], builder: Builder, nodes: Iterable[str], archives: bool = True, ollama: bool = True
) -> None:
    """Builds what is missing, two things at a time: half of the work waits for the network."""
    # Ollama's compiler runs take longer than all the rest, so they come first, one after the other.
    jobs: list[Callable[[], object]] = [partial(_ollama.ensure, builder), _models.ensure] if ollama else []
    # Meanwhile the largest download.
    jobs += [partial(builder.ensure, images.PHOENIX.name)] if images.PHOENIX in table else []
    jobs += [partial(builder.ensure, name) for name in ("upstream", *nodes)]
    jobs += [partial(_repos.compose_release, builder), partial(_repos.ensure, builder)]
    late = [image for image in table if image in _ollama.IMAGES]
    jobs += [
        partial(ensure_binary, binary, builder)
        for image in table
        if image not in late
        for binary in image.binaries
        if isinstance(binary, GoBinary)  # a program out of a wheel is there at once, when its image is built
    ]
    jobs += [partial(builder.ensure, image.name) for image in table]  # those of Ollama are its last
    if archives:
        jobs += [_archives.ensure, _wheels.ensure, _plugins.ensure]
    with ThreadPoolExecutor(max_workers=2) as pool:
        pending = [pool.submit(job) for job in jobs]
        try:
            for one in pending:
                one.result()
        except BaseException:
            say("something failed; waiting for the builds that still run")
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def down(options: argparse.Namespace) -> None:
    if options.node:
        for name in options.node:
            _nodes.remove(name)
        _inventory.write()
        return
    for container in labelled("container"):
        docker("rm", "-f", "-v", container)
    for kind in ("volume", "network"):
        for name in labelled(kind):
            docker(kind, "rm", name)
    if options.images:
        for name in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "llmops-world/*").split():
            docker("rmi", "-f", name, check=False)
    INVENTORY.unlink(missing_ok=True)
    say("no container, volume or network of the world is left")
    _stop_engine()


def _stop_engine() -> None:
    """Stops the engine if it was started for the world alone; who does so leaves its process id in build/world/."""
    file = STATE / "dockerd.pid"
    if not file.is_file():
        return
    number = int(file.read_text().strip() or 0)
    command = Path(f"/proc/{number}/comm")
    if number and command.is_file() and command.read_text().strip() == "dockerd":
        os.kill(number, signal.SIGTERM)
        say("stopped the engine that was started for the world")
    file.unlink()


def status(_options: argparse.Namespace) -> None:
    if not running(UPSTREAM):
        print("upstream   not running")
    else:
        http, registry, faulty = (published_port(UPSTREAM, port) for port in (80, 5000, 8081))
        print(
            f"upstream   running   http://127.0.0.1:{http} (for nodes http://upstream), registry 127.0.0.1:{registry}, "
            f"failing model registry 127.0.0.1:{faulty}"
        )
    for node in _nodes.existing():
        found = inspect("container", node_container(node.name))
        state = found["State"]["Status"] if found else "gone"
        address = f"http://127.0.0.1:{node.port}" if node.port else ""
        address += "".join(f", {outer} leads to {inner}" for outer, inner in node.more)
        print(f"{node.name:10} {state}   {node.system}   {address}".rstrip())


def inventory(_options: argparse.Namespace) -> None:
    _inventory.write()
    print(INVENTORY.read_text(), end="")


def switch(options: argparse.Namespace) -> None:
    print(json.dumps(_switch.switch(options.node, options.service, options.setting), indent=2))


def model(options: argparse.Namespace) -> None:
    for text in options.model:
        name, separator, edition = text.partition("=")
        if not separator:
            raise WorldError(f"{text!r} is not NAME=EDITION, as in speak=speak:first")
        _models.give(options.node, name, edition)


def cut(options: argparse.Namespace) -> None:
    for name in options.door:
        _nodes.door(name)
    for name in options.node:
        _nodes.cut(name)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="world.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(function.__name__, help=text, description=text)
        made.set_defaults(run=function)
        return made

    build_command = command(build, "build everything: images, repositories, archives")
    up_command = command(up, "start the upstream and the named nodes; builds what is missing")
    for made in (build_command, up_command):
        made.add_argument("--dify", action="append", default=[], metavar="TAG", help="only this Dify tag (repeatable)")
    build_command.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="IMAGE",
        help="nothing but this image of no Dify release, as chromium, phoenix or node-trixie; prints its full name",
    )
    up_command.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="NAME=SYSTEM[:PORT[,PORT:NODEPORT]…]",
        help=f"a node, its system ({', '.join(_nodes.SYSTEMS)}), a port that leads to its port 80, and more ports",
    )
    up_command.add_argument("--bare", action="store_true", help="package repositories only, nothing of Dify or Ollama")
    up_command.add_argument(
        "--ollama", action="store_true", help="with --bare: Ollama's archives, models and images, too"
    )
    made = command(down, "remove the named nodes, or everything that runs")
    made.add_argument("node", nargs="*")
    made.add_argument("--images", action="store_true", help="remove the built images as well")
    command(status, "show what runs and where")
    command(inventory, "write the inventory and print it")
    made = command(switch, "tell a stand-in on a node to misbehave; KEY= takes it back")
    made.add_argument("node")
    made.add_argument("service")
    made.add_argument("setting", nargs="*", metavar="KEY=VALUE")
    made = command(model, "put a model of the registry into a node's own store, under a name")
    made.add_argument("node")
    made.add_argument("model", nargs="+", metavar="NAME=EDITION")
    made = command(cut, "take every way out from nodes; they reach only each other, and what is a door")
    made.add_argument("node", nargs="+")
    made.add_argument("--door", action="append", default=[], metavar="NODE", help="one that keeps its own way out")
    return parser


def main() -> int:
    options = arguments().parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        require_engine()
        with (CACHE / "lock").open("w") as lock:
            if options.run in (build, up, down):
                _take(lock)
            options.run(options)
    except WorldError as problem:
        print(f"world.py: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("world.py: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    return 0


def _take(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another world.py to end")
        fcntl.flock(lock, fcntl.LOCK_EX)


if __name__ == "__main__":
    sys.exit(main())
