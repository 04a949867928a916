"""Model versions in the database, and their layouts in memory.

A version is stored once with its features and does not change, so what is known stays known.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from moorage_gateway.prediction_log import ModelIdentity, Query
from moorage_gateway.store import engines, features
from moorage_gateway.store.features import Feature, Layout, clean
from moorage_gateway.store.schema import feature_schema, model_version

#: Namespace, deployment, variant, model, version and sha256: what makes a version that one.
Key: TypeAlias = tuple[str, str, str, str, str, str]

_KEY_COLUMNS: Final = tuple(
    model_version.c[name]
    for name in ("namespace", "deployment", "variant", "model", "version", "sha256")
)


@dataclass(frozen=True, slots=True, eq=False)
class StoredVersion:
    """A model version as the database has it."""

    id: int
    key: Key
    layout: Layout


#: What a row is read as whose version somebody deleted by hand.
NO_VERSION: Final = StoredVersion(0, ("", "", "", "", "", ""), Layout(()))


def key_of(identity: ModelIdentity) -> Key:
    """Return what tells an identity from others."""
    return (
        clean(identity.namespace),
        clean(identity.deployment),
        clean(identity.variant),
        clean(identity.model),
        clean(identity.version),
        clean(identity.sha256),
    )


class Versions:
    """The model versions of one database; any thread may ask."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._by_key: dict[Key, StoredVersion] = {}
        self._by_id: dict[int, StoredVersion] = {}

    def forget(self) -> None:
        """Forget what is known; the database may be another one now."""
        with self._lock:
            self._by_key.clear()
            self._by_id.clear()

    def register(self, identities: Mapping[Key, ModelIdentity]) -> dict[Key, StoredVersion]:
        """Return the versions of `identities`, and store those that are new.

        In a transaction of its own, so that what is remembered here is committed whatever becomes
        of the rows that ask for it.
        """
        missing = sorted(key for key in identities if key not in self._by_key)
        if missing:
            with engines.for_writing(self._engine).begin() as connection:
                # In the order of keys: two processes with the same ones wait for each other, and
                # not each for the other.
                for key in missing:
                    _store(connection, key, identities[key])
                found = _load(connection, model_version.c.id.in_(_ids(connection, missing)))
            self._remember(found)
        return {key: self._by_key[key] for key in identities}

    def by_id(self, connection: Connection, ids: Iterable[int]) -> Mapping[int, StoredVersion]:
        """Return the versions with these ids; `NO_VERSION` for one that is gone."""
        wanted = set(ids)
        missing = [number for number in wanted if number not in self._by_id]
        if missing:
            self._remember(_load(connection, model_version.c.id.in_(missing)))
        return {number: self._by_id.get(number, NO_VERSION) for number in wanted}

    def _remember(self, found: Iterable[StoredVersion]) -> None:
        with self._lock:
            for version in found:
                self._by_id[version.id] = version
                self._by_key[version.key] = version


def matching(connection: Connection, query: Query) -> list[int] | None:
    """Return the ids of the versions that a query asks for; None when it asks for all."""
    wanted = [
        model_version.c[name] == value
        for name in ("namespace", "deployment", "model", "version")
        if (value := getattr(query, name))
    ]
    if not wanted:
        return None
    return list(connection.scalars(select(model_version.c.id).where(*wanted)))


def _store(connection: Connection, key: Key, identity: ModelIdentity) -> None:
    """Insert a version and its features, unless another process did."""
    insert_once = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    values = {column.name: part for column, part in zip(_KEY_COLUMNS, key, strict=True)}
    once = insert_once(model_version).values(values).on_conflict_do_nothing()
    number = connection.scalar(once.returning(model_version.c.id))
    if number is None:
        return
    rows = [_row_of(number, feature) for feature in features.plan(identity.signature)]
    if rows:
        connection.execute(insert(feature_schema), rows)


def _ids(connection: Connection, keys: Iterable[Key]) -> list[int]:
    found = []
    for key in keys:
        same = [column == part for column, part in zip(_KEY_COLUMNS, key, strict=True)]
        found.append(connection.scalars(select(model_version.c.id).where(*same)).one())
    return found


def _row_of(model_version_id: int, feature: Feature) -> dict[str, Any]:
    return {
        "model_version_id": model_version_id,
        "io": feature.io,
        "pos": feature.pos,
        "tensor": feature.tensor,
        "name": feature.name,
        "kind": feature.kind,
        "dtype": feature.dtype,
        "shape": feature.shape,
        "slot": feature.slot,
        "slot_pos": feature.slot_pos,
    }


def _load(connection: Connection, condition: Any) -> list[StoredVersion]:
    keys = {
        row.id: tuple(row[1:])
        for row in connection.execute(select(model_version.c.id, *_KEY_COLUMNS).where(condition))
    }
    number_of = feature_schema.c.model_version_id
    rows = connection.execute(select(feature_schema).where(number_of.in_(keys)).order_by(number_of))
    layouts = {
        number: features.from_rows(group)
        for number, group in groupby(rows, key=attrgetter("model_version_id"))
    }
    return [
        StoredVersion(number, key, layouts.get(number, NO_VERSION.layout))
        for number, key in keys.items()
    ]
