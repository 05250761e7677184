"""The migrations' statements for a cluster: the same tables, replicated and distributed.

Pure: a statement in, statements out. A table becomes two – `NAME_local`, replicated, which holds a shard's rows, and
`NAME`, distributed, which everybody reads and writes as on one server. Rows go to a shard by the table's sorting key,
which is a function of a record's identity: copies of one record meet on one shard, and FINAL shows one.

Parsed by the engine in the tests and not run on a cluster there. What a cluster needs of its own – Keeper, the macros
`{shard}` and `{replica}`, the cluster's name – is its operator's.
"""

from __future__ import annotations

import re
from typing import Final

_CREATE_TABLE: Final = re.compile(
    r"""CREATE\ TABLE\ IF\ NOT\ EXISTS\ (?P<name>\w+)\s*(?P<columns>\(.*\))\s*
        ENGINE\ =\ ReplacingMergeTree(?:\((?P<version>\w+)\))?
        (?P<rest>.*?\bORDER\ BY\ (?P<key>\([^()]*\)|\w+).*)""",
    re.VERBOSE | re.DOTALL,
)
_VIEW: Final = re.compile(r"(CREATE OR REPLACE VIEW \w+)(\s+.*)", re.DOTALL)
_ALTER: Final = re.compile(r"ALTER TABLE (\w+)(\s+.*)", re.DOTALL)
# What only the table that holds rows has; the distributed one has columns alone.
_STORAGE: Final = re.compile(r"\s(?:MODIFY|REMOVE)\s+(?:TTL|SETTING|ORDER BY)|\sINDEX\s|\sPROJECTION\s|\sMATERIALIZE\s")


class NotForCluster(ValueError):
    """A statement that has no counterpart on a cluster."""


def clustered(statement: str, cluster: str) -> tuple[str, ...]:
    """The statements that do on a cluster what this one does on one server.

    Raises `NotForCluster` for one of an unknown kind: better none than one that only a single node obeys.
    """
    on = f"ON CLUSTER {_identifier(cluster)}"
    if match := _CREATE_TABLE.fullmatch(statement):
        name, version = match["name"], match["version"]
        # One path for the replicas of a shard; the migrations' own record has one copy on every node instead.
        shard, replica = ("{shard}", "{replica}") if name != "schema_migrations" else ("all", "{shard}-{replica}")
        engine = f"ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{{database}}/{{table}}', '{replica}'"
        engine += f", {version})" if version else ")"
        if name == "schema_migrations":
            return (f"CREATE TABLE IF NOT EXISTS {name} {on}\n{match['columns']}\nENGINE = {engine}{match['rest']}",)
        local = f"CREATE TABLE IF NOT EXISTS {name}_local {on}\n{match['columns']}\nENGINE = {engine}{match['rest']}"
        key = match["key"].strip("()")
        distributed = (
            f"CREATE TABLE IF NOT EXISTS {name} {on} AS {name}_local\n"
            f"ENGINE = Distributed({_literal(cluster)}, currentDatabase(), {name}_local, cityHash64({key}))"
        )
        return local, distributed
    if match := _VIEW.fullmatch(statement):
        return (f"{match[1]} {on}{match[2]}",)
    if match := _ALTER.fullmatch(statement):
        local = f"ALTER TABLE {match[1]}_local {on}{match[2]}"
        return (local,) if _STORAGE.search(match[2]) else (local, f"ALTER TABLE {match[1]} {on}{match[2]}")
    raise NotForCluster(f"has no counterpart on a cluster: {statement.split(chr(10), maxsplit=1)[0]}")


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
