# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Classes of one Weaviate in another one, and in files.

Nothing of what is written is believed: after a class was copied it is read back, and the sum over all its ids,
properties and vectors must be that of what was sent. Weaviate keeps vectors as 32-bit numbers and prints them so that
reading them gives the same bits, in 1.19.0 and in 1.27.0.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_vector_form import (
    Sum,
    as_written,
    is_difys,
    is_named,
    named_class,
    named_object,
    plain_object,
)
from ansible_collections.llmops.stack.plugins.module_utils._weaviate import PAGE, Weaviate, WeaviateError

__all__ = ["MANIFEST", "Times", "copy_all", "export_files", "import_files", "refresh"]

MANIFEST = "schema.json"
Times = dict[str, dict[str, str]]  # class -> id -> when it was written last
Check = Callable[[], None]  # raises when the time is over


def _pass() -> None:
    """No limit but that of each request."""


def copy_all(source: Weaviate, target: Weaviate, prefix: str, check: Check = _pass) -> Times:
    """All classes in the form of Dify 1.9.2 and later; returns what was there, for C(refresh).

    The source may be written to meanwhile: of each object that was read it is noted when it had been written.
    """
    return {str(described["class"]): _copy(source, target, described, prefix, check) for described in source.classes()}


def _copy(source: Weaviate, target: Weaviate, described: dict[str, Any], prefix: str, check: Check) -> dict[str, str]:
    name = str(described["class"])
    noted: dict[str, str] = {}
    converted = _converts(described, prefix)
    target.create(named_class(described) if converted else as_written(described))

    def read() -> Iterator[list[dict[str, Any]]]:
        for page in source.pages(name):
            noted.update((str(one["id"]), str(one["lastUpdateTimeUnix"])) for one in page)
            yield _made(page, converted)

    _fill(target, name, read(), check)
    return noted


def _converts(described: dict[str, Any], prefix: str) -> bool:
    """Classes that somebody else keeps in Dify's server stay as they are."""
    return is_difys(str(described["class"]), prefix) and not is_named(described)


def _made(page: Iterable[dict[str, Any]], converted: bool) -> list[dict[str, Any]]:
    return [named_object(one) if converted else plain_object(one) for one in page]


def _fill(target: Weaviate, name: str, pages: Iterable[list[dict[str, Any]]], check: Check) -> Sum:
    sent, found = Sum(), Sum()
    for page in pages:
        check()
        target.insert(page)
        sent.add(page)
    for page in target.pages(name):
        check()
        found.add(page)
    if str(sent) != str(found):
        raise WeaviateError(
            f"what Weaviate reads of {name} is not what was written to it ({found.objects} of {sent.objects} objects)"
        )
    return sent


def refresh(source: Weaviate, target: Weaviate, noted: Times, prefix: str, check: Check = _pass) -> Times:
    """What has changed in the source since C(copy_all); what is there now. Nothing may write to it any more."""
    now: Times = {}
    described = {str(one["class"]): one for one in source.classes()}
    have = {str(one["class"]): one for one in target.classes()}
    for name in sorted(set(have) - set(described)):
        target.drop(name)
    for name, one in described.items():
        if name not in noted or name not in have:
            if name in have:
                target.drop(name)
            now[name] = _copy(source, target, one, prefix, check)
        else:
            now[name] = _refresh(source, target, name, noted[name], _converts(one, prefix), check)
        found = target.count(name)
        if found != len(now[name]):
            raise WeaviateError(f"the copy of {name} has {found} objects and should have {len(now[name])}")
    return now


def _refresh(
    source: Weaviate, target: Weaviate, name: str, before: dict[str, str], converted: bool, check: Check
) -> dict[str, str]:
    after = source.times(name)
    for identifier in set(before) - set(after):
        check()
        target.remove(name, identifier)
    changed = [identifier for identifier, when in after.items() if before.get(identifier) != when]
    for start in range(0, len(changed), PAGE):
        check()
        found = (source.get(name, identifier) for identifier in changed[start : start + PAGE])
        target.insert(_made([one for one in found if one], converted))
    return after


# -- files


def export_files(source: Weaviate, folder: str, check: Check = _pass) -> dict[str, Any]:
    """Every class in a file of its own, a line per object, in the form it has; returns what C(schema.json) says.

    The folder is there and empty. C(counts) and C(sums) are of what was written, each class as it was when its turn
    came.
    """
    said: dict[str, Any] = {"version": source.version(), "classes": source.classes(), "counts": {}, "sums": {}}
    for number, described in enumerate(said["classes"]):
        name = str(described["class"])
        added = Sum()
        with _open(os.path.join(folder, _file(number)), "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed:
                for page in source.pages(name):
                    check()
                    made = [plain_object(one) for one in page]
                    packed.write(b"".join(json.dumps(one).encode() + b"\n" for one in made))
                    added.add(made)
            raw.flush()
            os.fsync(raw.fileno())
        said["counts"][name], said["sums"][name] = added.objects, str(added)
    with _open(os.path.join(folder, MANIFEST), "w") as file:
        json.dump(said, file)
        file.flush()
        os.fsync(file.fileno())
    return said


def import_files(target: Weaviate, folder: str, check: Check = _pass) -> dict[str, int]:
    """The classes of an export instead of those that are there; returns the number of objects of each.

    Classes of the same name are replaced, others that are Dify's are dropped: they belong to what is replaced.
    """
    with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
        said = json.load(file)
    wanted = {str(one["class"]) for one in said["classes"]}
    for one in target.classes():
        if str(one["class"]) in wanted or is_difys(str(one["class"])):
            target.drop(str(one["class"]))
    for number, described in enumerate(said["classes"]):
        name = str(described["class"])
        target.create(as_written(described))
        total = _fill(target, name, _lines(os.path.join(folder, _file(number))), check)
        if str(total) != said["sums"][name]:
            raise WeaviateError(f"the export of {name} is not whole: {total.objects} of {said['counts'][name]} objects")
    return dict(said["counts"])


def _lines(path: str) -> Iterator[list[dict[str, Any]]]:
    page: list[dict[str, Any]] = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            page.append(json.loads(line))
            if len(page) == PAGE:
                yield page
                page = []
    if page:
        yield page


def _file(number: int) -> str:
    return f"{number:04d}.ndjson.gz"


def _open(path: str, mode: str) -> Any:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return open(handle, mode, encoding=None if "b" in mode else "utf-8")
