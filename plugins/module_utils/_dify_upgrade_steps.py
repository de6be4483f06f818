# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""The steps that a plan may name: what each does, and how it is undone. Both may be done twice.

Undone are the steps that were begun, the last one first. So an undo may take for granted what the steps before its own
left, and must not mind whether its own step did nothing, a part or all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils import _dify_data_commands as commands
from ansible_collections.llmops.stack.plugins.module_utils import _dify_plugin_road as road
from ansible_collections.llmops.stack.plugins.module_utils import _dify_sandbox_config as sandbox_config
from ansible_collections.llmops.stack.plugins.module_utils import _dify_storage_owner as storage_owner
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_copies as copies
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_data as data
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_files as files
from ansible_collections.llmops.stack.plugins.module_utils import _dify_upgrade_services as services
from ansible_collections.llmops.stack.plugins.module_utils import _dify_vectors as vectors
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_prune import prune

__all__ = ["AFTER_PROOF", "BY_THE_ROLE", "STEPS", "Step"]


class Step(NamedTuple):
    do: Callable[[Context], None]
    # None: what it leaves is undone by the others, or harms nobody.
    undo: Callable[[Context], None] | None = None


def _close(ctx: Context) -> None:
    copies.demand_alone(ctx)
    services.close_doors(ctx)


STEPS: dict[str, Step] = {
    # While everything runs
    "fetch_plugins": Step(road.fetch, road.unfetch),
    "prepare_vectors": Step(vectors.prepare, vectors.unprepare),
    "prepare_storage": Step(storage_owner.prepare, storage_owner.undo),
    # In the outage
    "maintenance": Step(_close, services.back_to_old),
    "stop": Step(services.stop_writers, services.writers_back),
    "copy_databases": Step(copies.copy_databases, copies.copies_back),
    "keep_vectors": Step(vectors.keep, vectors.unkeep),
    "set_vectors_aside": Step(vectors.set_aside, vectors.unkeep),
    "storage_owner": Step(storage_owner.apply),  # given back by the undo of prepare_storage, when the doors are open
    "sandbox_config": Step(sandbox_config.apply, sandbox_config.undo),
    "data_services": Step(services.stores_of_new, services.stores_of_old),
    "restore_databases": Step(data.restore_databases, data.unrestore),
    "restore_files": Step(files.restore_files),
    "restore_vectors": Step(vectors.restore_backup),
    "migrate": Step(data.migrate),
    "start_api": Step(services.start_api, services.take_new_away),
    "load_vectors": Step(vectors.load),
    "vector_properties": Step(vectors.add_properties),
    "start_daemon": Step(services.start_daemon, services.take_new_away),
    "install_plugins": Step(road.install),
    "plugin_names": Step(road.names),
    "legacy_model_types": Step(commands.legacy_model_types),
    "plugin_auto_upgrade": Step(commands.plugin_auto_upgrade),
    "start": Step(services.start_new, services.take_new_away),
    # Without one
    "handover": Step(services.hand_over, services.hand_back),
    # From here on the new release is the one that is kept
    "prove": Step(data.prove),
    "open": Step(services.open_doors),
    "forget_copies": Step(copies.forget),
    "prune": Step(prune),
}

# Once this one is done there is no way back without a loss.
AFTER_PROOF = "prove"
# Done before the machine begins, each by a module of its own.
BY_THE_ROLE = ("pull", "backup")
