# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Dify's own Weaviate over an upgrade to 1.9.2 or later, which brings Weaviate 1.27 in place of 1.19.

1.27.0 started on the files of 1.19.0 comes up healthy, with the classes and without a single object, and Dify asks it
in a form that those classes do not have. So the files are not handed on. While everything still runs, a Weaviate of the
new release is filled beside the old one, through both servers' interfaces (C(prepare)). In the outage only what has
changed since is copied, and the two folders change places (C(keep)). The old folder is moved, never written to: the way
back (C(unkeep)) moves it to its place again, until C(forget) removes it.

Every function may be called again after any of them was interrupted. What must outlive the process is in
C(vectors.json) among the evidence, and in which folders there are.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils import _dify_vector_copy as copying
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._dify_vector_form import NAME, is_difys, is_named, missing
from ansible_collections.llmops.stack.plugins.module_utils._dify_vector_store import (
    DATA,
    SERVICE,
    START,
    connect,
    data_folder,
    restore,
    size,
    store,
)
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import DockerError, last_line
from ansible_collections.llmops.stack.plugins.module_utils._weaviate import Weaviate, WeaviateError

__all__ = ["add_properties", "forget", "keep", "load", "prepare"]
__all__ += ["restore_backup", "set_aside", "unkeep", "unprepare"]

_STOP = 120
_NOTE = "vectors.json"
_ADVICE = (
    "Nothing of Weaviate's data was changed. Look at the log of the container weaviate, and run the upgrade again when "
    "the cause is gone."
)


# -- steps of an upgrade that crosses 1.9.2


def prepare(ctx: Context) -> None:
    """Fill a Weaviate of the new release beside the one that serves, in a folder of its own."""
    unprepare(ctx)
    try:
        folder = _checked(ctx)
        old = connect(ctx.project)
        with old, _beside(ctx, folder) as new:
            times = copying.copy_all(old, new, store(ctx.project).prefix, _check(ctx))
        # What it has in memory goes to its files now, and not in the outage.
        ctx.project.docker.output(["restart", "-t", str(_STOP), _name(ctx)], _STOP + 60)
        connect(ctx.project, ctx.new, _name(ctx), ctx.remaining(START)).close()
    except (WeaviateError, DockerError, OSError) as exc:
        unprepare(ctx)
        raise StepError(f"Weaviate's collections could not be copied for Dify {ctx.new}: {exc}.", _ADVICE) from None
    # The second server goes on until C(keep) has given it the rest: starting it again would be a part of the outage.
    _note(ctx, folder=folder, times=times)
    ctx.log(f"{len(times)} collections with {sum(map(len, times.values()))} objects are in {_next(folder)}")


def unprepare(ctx: Context) -> None:
    """Away with the Weaviate beside the one that serves, if there is one."""
    ctx.project.docker.run(["rm", "-f", _name(ctx)], 60)
    folder = _noted(ctx).get("folder") or data_folder(ctx.project)
    if folder and not os.path.lexists(_before(folder)):
        shutil.rmtree(_next(folder), ignore_errors=True)
        _unnote(ctx, "times")


def keep(ctx: Context) -> None:
    """Copy what has changed since C(prepare), and put the new folder in the place of the old one."""
    if _noted(ctx).get("times") is None:
        prepare(ctx)
    noted = _noted(ctx)
    folder = noted["folder"]
    try:
        with connect(ctx.project, ctx.old) as old, _beside(ctx, folder) as new:
            times = copying.refresh(old, new, noted["times"], store(ctx.project, ctx.old).prefix, _check(ctx))
        _note(ctx, counts={name: len(ids) for name, ids in times.items()})
        _stop_both(ctx)
        os.rename(folder, _before(folder))
        os.rename(_next(folder), folder)
    except (WeaviateError, DockerError, OSError) as exc:
        raise StepError(f"Weaviate's collections could not be moved to Dify {ctx.new}: {exc}.", _ADVICE) from None
    ctx.log(f"{sum(map(len, times.values()))} objects are in {folder}; as they were they are in {_before(folder)}")


def _stop_both(ctx: Context) -> None:
    """In order and not by force, so that the files of each are whole."""
    one = ctx.project.container(SERVICE)
    names = [_name(ctx), *([one.id] if one else [])]
    ctx.project.docker.output(["stop", "-t", str(_STOP), *names], _STOP + 60)
    ctx.project.docker.output(["rm", *names], 60)


def load(ctx: Context) -> None:
    """See that the new release's own Weaviate has it all, and answers as the new release will ask it."""
    noted = _noted(ctx)
    try:
        with connect(ctx.project, ctx.new, seconds=ctx.remaining(START)) as client:
            found = {str(one["class"]): one for one in client.classes()}
            counts = {name: client.count(name) for name in found}
            if counts != noted.get("counts"):
                raise WeaviateError(f"it has {_few(counts)} and should have {_few(noted.get('counts') or {})}")
            for name, described in found.items():
                if is_difys(name, store(ctx.project, ctx.new).prefix) and counts[name]:
                    _ask_like_dify(client, name, described)
    except (WeaviateError, DockerError) as exc:
        raise StepError(f"The Weaviate of Dify {ctx.new} does not have the knowledge of {ctx.old}: {exc}.") from None
    ctx.log(f"Weaviate has {_few(counts)}, and finds them")


def _ask_like_dify(client: Weaviate, name: str, described: dict[str, Any]) -> None:
    """One search of the kind that Dify 1.9.2 and later make: it must find what it was given."""
    lacking = [one["name"] for one in missing(described)]
    if not is_named(described) or lacking:
        raise WeaviateError(f"{name} is not in the form that is asked for ({', '.join(lacking) or 'no named vector'})")
    one = next(client.pages(name, 1))[0]
    vector = (one.get("vectors") or {}).get(NAME)
    if vector and not client.nearest(name, vector, NAME):
        raise WeaviateError(f"{name} finds nothing, not even what it has")


def unkeep(ctx: Context) -> None:
    """Put the old folder back in its place, with no server on either; the old release's own starts it.

    To be called before the stores of the old release are started: they must not be given the new one's files.
    """
    folder = _noted(ctx).get("folder")
    if folder and os.path.lexists(_before(folder)):
        ctx.project.stop([SERVICE], 10)
        ctx.project.remove([SERVICE])
        if os.path.lexists(folder):
            shutil.rmtree(folder)
        os.rename(_before(folder), folder)
        ctx.log(f"Weaviate's files are in {folder} again, as they were")
    _unnote(ctx, "aside")
    unprepare(ctx)


def forget(ctx: Context) -> None:
    """Remove the old folder. There is no way back to it any more."""
    folder = _noted(ctx).get("folder")
    if folder and os.path.lexists(_before(folder)):
        # Under another name first: a half removed folder must not be taken for the old data.
        os.rename(_before(folder), folder + ".gone")
    if folder:
        shutil.rmtree(folder + ".gone", ignore_errors=True)


# -- steps of a rollback to the backup that an upgrade has made


def set_aside(ctx: Context) -> None:
    """Give the older release's Weaviate an empty folder; undone by C(unkeep), and gone with C(forget).

    It may not be able to read the files of the newer one; and the databases go back to the moment of the backup, so the
    vectors must, too: a document that was deleted since is in them again.
    """
    noted = _noted(ctx)
    if not store(ctx.project, ctx.new).internal or noted.get("aside"):
        return
    folder = data_folder(ctx.project)
    if not folder:
        return
    try:
        if os.path.lexists(_before(folder)):
            raise WeaviateError(f"{_before(folder)} is there, from another upgrade; move it away")
        _note(ctx, folder=folder)
        ctx.project.stop([SERVICE], _STOP)
        ctx.project.remove([SERVICE])
        _make_like(folder, _next(folder))
        os.rename(folder, _before(folder))
        os.rename(_next(folder), folder)
    except (WeaviateError, DockerError, OSError) as exc:
        raise StepError(f"Weaviate's data could not be set aside: {exc}.", _ADVICE) from None
    _note(ctx, aside=True)


def restore_backup(ctx: Context) -> None:
    """Fill the older release's Weaviate from the backup."""
    folder = os.path.join(str(ctx.plan.get("backup", "")), "vectors")
    if not _noted(ctx).get("aside"):
        return
    if not os.path.isfile(os.path.join(folder, copying.MANIFEST)):
        ctx.log(f"{folder} holds no vectors; knowledge has to be indexed again")
        return
    try:
        counts = restore(ctx.project, folder, ctx.remaining())
    except (WeaviateError, DockerError, OSError) as exc:
        raise StepError(f"The vectors could not be restored from {folder}: {exc}.") from None
    ctx.log(f"Weaviate has {_few(counts)} from the backup")


# -- a step of an upgrade that crosses 1.13.1


def add_properties(ctx: Context) -> None:
    """Properties that the new release asks for in each search, and that older classes of the new form lack.

    Of 1.13.1 and later C(doc_type): without it every search in a knowledge base made before fails with C(no such prop).
    An older release does not mind one more, so this needs no undo.
    """
    prefix = store(ctx.project, ctx.new).prefix
    try:
        with connect(ctx.project, ctx.new, seconds=ctx.remaining(START)) as client:
            for described in client.classes():
                name = str(described["class"])
                lacking = missing(described) if is_difys(name, prefix) and is_named(described) else []
                for one in lacking:
                    client.add_property(name, one)
                if lacking:
                    ctx.log(f"{name} has the properties {', '.join(one['name'] for one in lacking)} now")
    except (WeaviateError, DockerError) as exc:
        raise StepError(f"Dify's collections in Weaviate could not be given what {ctx.new} asks for: {exc}.") from None


# -- the Weaviate of the new release, beside the other one


def _beside(ctx: Context, folder: str) -> Weaviate:
    """A container like that which the new release will have, on the folder that will be its own; started if need be."""
    if not ctx.project.address(_name(ctx)):
        docker = ctx.project.docker
        definition = ctx.project.definition(ctx.new)
        service = definition["services"][SERVICE]
        network = ((definition.get("networks") or {}).get("default") or {}).get("name") or f"{ctx.project.name}_default"
        environment = {
            key: str(value) for key, value in (service.get("environment") or {}).items() if value is not None
        }
        environment.update(DISABLE_TELEMETRY="true", PERSISTENCEDATA_PATH=DATA)
        docker.run(["rm", "-f", _name(ctx)], 60)
        arguments = ["run", "-d", "--name", _name(ctx), "--network", network, "-v", f"{_next(folder)}:{DATA}"]
        arguments += [part for key in environment for part in ("-e", key)]
        code, _out, err = docker.run([*arguments, str(service["image"])], 120, env=environment)
        if code:
            raise DockerError(f"a second Weaviate cannot be started ({last_line(err) or f'exit code {code}'})")
    return connect(ctx.project, ctx.new, _name(ctx), ctx.remaining(START))


def _name(ctx: Context) -> str:
    return f"{ctx.project.name}-{SERVICE}-next"


def _checked(ctx: Context) -> str:
    """The folder of Weaviate's data, after looking whether it can be moved and doubled; makes the new one beside it."""
    folder = data_folder(ctx.project)
    if not folder:
        raise WeaviateError(f"its data is not in a folder of this host ({DATA} of its container is not mounted)")
    if os.path.ismount(folder):
        raise WeaviateError(
            f"{folder} is a file system of its own and cannot be moved aside; mount it one level higher and let a link "
            "of that name lead to a folder in it"
        )
    if os.path.lexists(_before(folder)):
        raise WeaviateError(f"{_before(folder)} is there, from another upgrade; move it away")
    have, free = size(folder), shutil.disk_usage(folder).free
    if free < have * 1.2:
        raise WeaviateError(f"{folder} has {have >> 20} MiB, and for a second one only {free >> 20} MiB are free")
    _make_like(folder, _next(folder))
    return folder


def _make_like(folder: str, made: str) -> None:
    seen = os.stat(folder)
    os.makedirs(made, 0o700, exist_ok=True)
    os.chown(made, seen.st_uid, seen.st_gid)
    os.chmod(made, seen.st_mode & 0o7777)


def _next(folder: str) -> str:
    return folder + ".next"


def _before(folder: str) -> str:
    return folder + ".before"


def _check(ctx: Context) -> Callable[[], None]:
    def check() -> None:
        if ctx.late():
            raise WeaviateError("the time for the upgrade is over")

    return check


def _noted(ctx: Context) -> dict[str, Any]:
    try:
        with open(os.path.join(ctx.folder, _NOTE), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


def _note(ctx: Context, **more: Any) -> None:
    path = os.path.join(ctx.folder, _NOTE)
    said = {**_noted(ctx), **more}
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(said, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def _unnote(ctx: Context, key: str) -> None:
    """On the way back, where nobody reads it any more: a full disk must not stop that."""
    if key in _noted(ctx):
        with contextlib.suppress(OSError):
            _note(ctx, **{key: None})


def _few(counts: dict[str, int]) -> str:
    shown = [f"{name} ({number})" for name, number in sorted(counts.items())]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "") or "no collection"
