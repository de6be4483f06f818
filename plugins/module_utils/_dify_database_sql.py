# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Texts for psql about databases: quoting, copies, names, and what belongs to a database but is not in it.

Each of them is all that one psql has to do, because each start of one costs a part of a second, in an outage.
"""

from __future__ import annotations

import re

__all__ = ["copy_script", "drop_script", "identifier", "literal", "rename_script", "shape", "terminate_sql"]

# Free text of users may be in a statement; what the statement does is enough.
_QUOTED = re.compile(r"'(?:[^']|'')*(?:'|$)")
_LARGE = 100 * 1024 * 1024
# Settings whose value is a list, which the server shows with its quotes.
_LISTS = "'search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries', 'datestyle'"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def shape(query: str) -> str:
    """A statement without the values in it, on one line."""
    return " ".join(_QUOTED.sub("'...'", query).split())[:200]


def terminate_sql(database: str) -> str:
    """Ends everybody's sessions in a database, a row for each."""
    return (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = {literal(database)} AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )


def drop_script(database: str) -> str:
    """Before 13 a server cannot end the sessions by itself."""
    name = identifier(database)
    return f"""SELECT :SERVER_VERSION_NUM >= 130000 AS forces \\gset
\\if :forces
DROP DATABASE IF EXISTS {name} WITH (FORCE);
\\else
\\o /dev/null
{terminate_sql(database)};
\\o
DROP DATABASE IF EXISTS {name};
\\endif
"""


def rename_script(old: str, new: str) -> str:
    """The server waits some seconds for the sessions that were ended to be gone."""
    ended = f"\\o /dev/null\n{terminate_sql(old)};\n\\o\n"
    return f"{ended}ALTER DATABASE {identifier(old)} RENAME TO {identifier(new)}"


def copy_script(source: str, part: str, target: str) -> str:
    """A copy under the name C(part), what belongs to it, and only then its real name."""
    taken = f"database {target} exists already"
    return f"""DO $check$ BEGIN
  IF EXISTS (SELECT 1 FROM pg_database WHERE datname = {literal(target)}) THEN
    RAISE EXCEPTION USING MESSAGE = {literal(taken)}, ERRCODE = '42P04';
  END IF;
END $check$;
{drop_script(part)}
-- 15 and later send every page through the write-ahead log; from some size on, a checkpoint and copied files are less.
SELECT CASE WHEN :SERVER_VERSION_NUM >= 150000 AND pg_database_size({literal(source)}) > {_LARGE}
  THEN 'STRATEGY file_copy' ELSE '' END AS strategy \\gset
CREATE DATABASE {identifier(part)} TEMPLATE {identifier(source)} :strategy;
{_belongings(source, part)}
ALTER DATABASE {identifier(part)} RENAME TO {identifier(target)}"""


def _belongings(source: str, target: str) -> str:
    """Gives C(target) what the server keeps beside the contents of C(source): each row of these is a statement to run.

    That is settings (for everybody and for single roles), rights, a limit of connections, and the owner, in this order:
    who gives a database away may not change it any more.
    """
    wanted, where = literal(target), f"d.datname = {literal(source)}"
    name, value = "split_part(c, '=', 1)", "substr(c, strpos(c, '=') + 1)"
    return (
        "SELECT format(CASE WHEN s.setrole = 0 THEN 'ALTER DATABASE %2$I SET %3$I TO %4$s'"
        " ELSE 'ALTER ROLE %1$I IN DATABASE %2$I SET %3$I TO %4$s' END,"
        f" coalesce(r.rolname, ''), {wanted}, {name},"
        f" CASE WHEN lower({name}) IN ({_LISTS}) THEN {value} ELSE quote_literal({value}) END)"
        " FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
        f" LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c WHERE {where} \\gexec\n"
        # A database without a list of rights has the defaults.
        f"SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', {wanted}) FROM pg_database d"
        f" WHERE {where} AND d.datacl IS NOT NULL"
        " UNION ALL SELECT format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type,"
        f" {wanted}, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,"
        " CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)"
        f" FROM pg_database d, aclexplode(d.datacl) a WHERE {where} AND a.grantee <> d.datdba \\gexec\n"
        f"SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', {wanted}, d.datconnlimit) FROM pg_database d"
        f" WHERE {where} AND d.datconnlimit <> -1 \\gexec\n"
        f"SELECT format('ALTER DATABASE %I OWNER TO %I', {wanted}, pg_get_userbyid(d.datdba)) FROM pg_database d"
        f" WHERE {where} AND pg_get_userbyid(d.datdba) <> current_user \\gexec\n"
    )
