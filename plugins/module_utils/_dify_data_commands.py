# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Data commands of a Dify release, run in a container of their own and judged by what they changed.

Their exit codes prove nothing: some say that they are done with nothing done, and some never end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.llmops.stack.plugins.module_utils._dify_compose import Done
from ansible_collections.llmops.stack.plugins.module_utils._dify_database import literal
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_context import Context, StepError
from ansible_collections.llmops.stack.plugins.module_utils._docker_cli import last_line

__all__ = ["ending", "flask", "legacy_model_types", "plugin_auto_upgrade"]

# A command is a start of the whole application, up to 35 s on a slow host, and then some hundred rows a second.
START_SECONDS = 120.0
ROWS_PER_SECOND = 50.0
TYPED = (
    "provider_models",
    "tenant_default_models",
    "provider_model_settings",
    "load_balancing_model_configs",
    "provider_model_credentials",
)
OLD_TYPES = ("text-generation", "embeddings", "reranking")
STRATEGIES = "tenant_plugin_auto_upgrade_strategies"
CATEGORIES = ("tool", "model", "extension", "agent-strategy", "datasource", "trigger")


def flask(
    ctx: Context,
    command: Sequence[str],
    rows: int = 0,
    tag: str = "",
    env: Mapping[str, str] | None = None,
    shown: str = "",
) -> Done:
    """A flask command of a release (the current one without a tag); what it said is among the evidence."""
    seconds = ctx.remaining(START_SECONDS + rows / ROWS_PER_SECOND)
    done = ctx.project.once("api", list(command), seconds, env, tag=tag)
    ctx.keep(f"{ctx.step or 'command'}.log", done.out)
    ctx.log(f"{shown or ' '.join(command)}: {ending(ctx, done)}")
    return done


def ending(ctx: Context, done: Done) -> str:
    """How a command ended, in words that may stand after a colon."""
    if done.timed_out:
        return f"it did not end within {done.seconds:.0f} s"
    said = ctx.mask(last_line(done.out))[:200]
    return f"exit code {done.code} after {done.seconds:.0f} s" + (
        f", last words '{said}'" if said else ", without a word"
    )


def command_of(ctx: Context, default: Sequence[str]) -> list[str]:
    """The step's command as the plan has it for the release."""
    steps = [one for one in ctx.plan.get("steps", []) if one.get("id") == ctx.step]
    return list(steps[0].get("command") or default) if steps else list(default)


def legacy_model_types(ctx: Context) -> None:
    """C(text-generation), C(embeddings) and C(reranking) get the names that the new release writes.

    Raises:
        StepError: rows with an old name are left.
    """
    before = _old_types(ctx)
    if not before:
        ctx.log("no row has an old name of a model type")
        return
    done = flask(ctx, command_of(ctx, ["flask", "data-migrate", "legacy-model-types", "--apply"]), before)
    left = _old_types(ctx)
    if left:
        raise StepError(
            f"{left} of {before} rows still have a model type's old name after Dify's command that renames them "
            f"({ending(ctx, done)}).",
            "Read legacy_model_types.log among the evidence. The same command without --apply only tells what it would "
            "do, so it can be tried in the running release: docker compose -p dify exec api flask data-migrate "
            "legacy-model-types (from 1.15.0 on).",
        )
    merged = done.out.count('"event": "row_deleted"')
    ctx.log(f"{before} rows have the new names of their model types, {merged} doubles were merged")


def _old_types(ctx: Context) -> int:
    database = ctx.database
    names = ", ".join(literal(one) for one in OLD_TYPES)
    tables = ", ".join(literal(one) for one in TYPED)
    where = f"table_schema = 'public' AND column_name = 'model_type' AND table_name IN ({tables})"
    there = [row[0] for row in database.sql(f"SELECT table_name FROM information_schema.columns WHERE {where}")]
    counts = [f"(SELECT count(*) FROM {table} WHERE model_type IN ({names}))" for table in there]
    return int(database.sql(f"SELECT {' + '.join(counts)}")[0][0]) if counts else 0


def plugin_auto_upgrade(ctx: Context) -> None:
    """Each workspace has its wish for updates of plugins once for every category, and it is the one that it had.

    Dify's command gives models C(latest) whatever was chosen; what was chosen is written back.

    Raises:
        StepError: a workspace has no row for some category.
    """
    chosen = ctx.recall("chosen")
    if chosen is None:
        found = _strategies(ctx)
        chosen = {
            tenant: next(iter(of.values()))
            for tenant, of in found.items()
            if "model" not in of and len(set(of.values())) == 1
        }
        ctx.remember("chosen", chosen)
    waiting = _without_categories(ctx)
    if waiting:
        done = flask(ctx, command_of(ctx, ["flask", "backfill-plugin-auto-upgrade"]), len(waiting))
        left = _without_categories(ctx)
        if left:
            raise StepError(
                f"{len(left)} of {len(waiting)} workspaces have no setting for updates of each category of plugins "
                f"after Dify's command that makes them ({ending(ctx, done)}).",
                "Read plugin_auto_upgrade.log among the evidence.",
            )
    for tenant, setting in sorted(chosen.items()):
        ctx.database.sql(
            f"UPDATE {STRATEGIES} SET strategy_setting = {literal(setting)} WHERE tenant_id = {literal(tenant)}"
            f" AND category = 'model' AND strategy_setting <> {literal(setting)}"
        )
    ctx.log(f"{len(waiting)} workspaces have a setting for updates of each category of plugins, as they had chosen")


def _strategies(ctx: Context) -> dict[str, dict[str, str]]:
    """Workspace -> category -> setting."""
    found: dict[str, dict[str, str]] = {}
    for tenant, category, setting in ctx.database.sql(
        f"SELECT tenant_id::text, category, strategy_setting FROM {STRATEGIES} ORDER BY created_at"
    ):
        found.setdefault(tenant, {})[category] = setting
    return found


def _without_categories(ctx: Context) -> list[str]:
    return sorted(tenant for tenant, of in _strategies(ctx).items() if not set(CATEGORIES) <= set(of))
