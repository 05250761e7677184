"""One `Settings` made of each package's own part, read from `hitstream.toml` and the environment.

The environment wins over the file. A key that nobody knows is an error that names the nearest known one; secrets may
be given as `…_FILE`, the path of a file that holds them. `origins` says where each value came from.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from producers.settings import BarsSettings, ConditionSource, KiwoomSettings, QuotesSettings
from sinks.settings import ClickHouseSettings, LiveSettings
from streams.events import ConfigError
from streams.settings import ConditionRule, RecommendSettings, StreamSettings

from .files import unread

PREFIX = "HITSTREAM_"
DEFAULT_FILE = Path("hitstream.toml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class KafkaSettings(_Part):
    """`[kafka]`: the broker."""

    bootstrap_servers: str = Field("", description="host:port of the brokers, comma-separated.")


class ClockSettings(_Part):
    """`[clock]`: the one clock of all roles; leave it alone to live in real time."""

    start: datetime | None = Field(None, description="Market time at the anchor, with a UTC offset.")
    speed: float = Field(1.0, gt=0, le=3600, description="Market seconds per real second.")
    anchor: datetime | None = Field(
        None, description="Real moment to which start belongs; unset: when the role starts."
    )

    @field_validator("start", "anchor")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("needs a UTC offset, e.g. 2026-11-23T09:00:00+09:00")
        return value


class HealthSettings(_Part):
    """`[health]`: /healthz, /readyz and /metrics of a role, and its name in `hitstream status`."""

    port: int = Field(0, ge=0, le=65535, description="Port on loopback; 0 is off.")
    instance: str = Field(
        "",
        pattern=r"^[\w.-]*$",
        description="Name of this process in `hitstream status`; empty: the machine's, numbered.",
    )


class LogSettings(_Part):
    """`[log]`: what a role prints on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is printed.")
    format: Literal["text", "json"] = Field("text", description="`text` for people, `json` for machines.")


class LocalSettings(_Part):
    """`[local]`: the three servers that `hitstream up` starts for whatever address is not configured."""

    data_dir: Path = Field(Path(".data"), description="Folder of everything that the local servers and roles keep.")
    kafka_engine: Literal["auto", "apache", "noida"] = Field("auto", description="Which Kafka: apache needs Java 17.")
    kafka_port: int = Field(9092, ge=0, le=65535, description="Port of the local Kafka.")
    clickhouse_port: int = Field(8123, ge=0, le=65535, description="Port of the local ClickHouse (HTTP).")
    kiwoom_port: int = Field(10001, ge=0, le=65535, description="Port of the local market (REST and WebSocket).")
    market_seed: int = Field(7, description="Seed of the simulated market: the same seed, the same day.")
    market_hours: Literal["always", "market"] = Field("always", description="Whether the local market ever closes.")
    market_activity: float = Field(1.0, ge=0, description="How lively the local market is; 0 is silent.")
    market_plants: list[str] = Field(
        [], description='What follows a condition\'s hits in the local market, e.g. ["조건 5=+1.0%/5m"].'
    )
    market_neutral: bool = Field(
        False, description="A local market without trends, with conditions that hold stocks at random."
    )


class Condition(ConditionSource, ConditionRule):
    """One `[[conditions]]`: a condition to keep open, and what it is worth."""

    model_config = ConfigDict(extra="forbid")


class Settings(BaseSettings):
    """Everything that can be set, with the defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid")

    kiwoom: KiwoomSettings = KiwoomSettings()
    quotes: QuotesSettings = QuotesSettings()
    bars: BarsSettings = BarsSettings()
    kafka: KafkaSettings = KafkaSettings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    live: LiveSettings = LiveSettings()
    recommend: RecommendSettings = RecommendSettings()
    stream: StreamSettings = StreamSettings()
    clock: ClockSettings = ClockSettings()
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()
    local: LocalSettings = LocalSettings()
    conditions: list[Condition] = Field(default=[], description="The conditions to keep open.")

    @field_validator("conditions")
    @classmethod
    def _names_are_unique(cls, value: list[Condition]) -> list[Condition]:
        names = [condition.name for condition in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} stands there twice; name each condition once")
        return value


def load(config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings in force.

    Args:
        config: the settings file; None takes `./hitstream.toml` if it is there.
        environ: the environment; None takes the process's own.

    Raises:
        ConfigError: an unreadable file, an unknown key or a value that does not fit, each named.
    """
    environ = os.environ if environ is None else environ
    file = config or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    values = _read_toml(file) if file else {}
    _refuse_unknown(values, file)
    _refuse_unknown_variables(environ)
    for path, secret in _secret_files(environ).items():
        section, key = path
        values.setdefault(section, {})[key] = secret
    try:
        return _read(environ, values)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def _read(environ: Mapping[str, str], values: dict[str, Any]) -> Settings:
    """Settings from an environment (first) and the values of a file; pydantic-settings alone reads `os.environ`."""
    names = {name.lower(): value for name, value in environ.items() if not name.lower().endswith("_file")}

    class Environment(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return names

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return Environment(settings_cls), InitSettingsSource(settings_cls, init_kwargs=values)

    return Sourced()


def needed(value: str, key: str, for_example: str) -> str:
    """The value of a setting that a command can't do without.

    Raises:
        ConfigError: it is not set; the sentence says where to put it.
    """
    if not value:
        name = variable(*key.split("."))
        raise ConfigError(f"{key} is not set; put it into hitstream.toml or {name} (for example: {for_example}).")
    return value


def bootstrap_of(settings: Settings) -> str:
    """The broker's address.

    Raises:
        ConfigError: it is not set.
    """
    return needed(settings.kafka.bootstrap_servers, "kafka.bootstrap_servers", "127.0.0.1:9092")


def origins(config: Path | None = None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting's value comes from: `key` → `environment NAME`, the file's name, or `default`."""
    environ = os.environ if environ is None else environ
    file = config or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    values = _read_toml(file) if file else {}
    names = {name.upper() for name in environ}
    found = {}
    for section, key in _leaves():
        name = variable(section, key)
        dotted = f"{section}.{key}" if key else section
        given = values.get(section, {}).get(key) is not None if key else section in values
        if name in names:
            found[dotted] = f"environment {name}"
        elif f"{name}_FILE" in names:
            found[dotted] = f"environment {name}_FILE"
        else:
            found[dotted] = str(file) if given else "default"
    return found


def example() -> str:
    """An annotated example of `hitstream.toml`: every setting, its meaning and its default."""
    lines = [
        "# Hitstream's settings. Every line that starts with '#' and a key shows the default.",
        "# Each can also come from the environment: [kiwoom] app_key is HITSTREAM_KIWOOM__APP_KEY, and a secret may",
        "# be a file: HITSTREAM_KIWOOM__APP_KEY_FILE=/run/secrets/app_key. The environment wins.",
        "# `hitstream config` prints what is in force and where each value came from.",
    ]
    for section, field in Settings.model_fields.items():
        part = field.annotation
        if not (isinstance(part, type) and issubclass(part, BaseModel)):
            continue
        lines += ["", f"# {(part.__doc__ or '').splitlines()[0]}", f"[{section}]"]
        for key, item in part.model_fields.items():
            lines += [f"# {item.description}", f"# {key} = {_toml(item.default)}"]
    lines += [
        "",
        "# The conditions to keep open, by their names in the HTS (at most 10), and what each is worth.",
    ]
    for key, item in Condition.model_fields.items():
        lines.append(f"# {key}: {item.description}")
    lines += [
        "[[conditions]]",
        'name = "신고가 돌파"',
        "weight = 1.0",
        "hold = 10",
        'algorithm_id = "1"',
        "",
        "[[conditions]]",
        'name = "대왕개미단타"',
        "weight = 1.0",
        'window = ["09:00", "15:20"]',
        'algorithm_id = "2"',
    ]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, SecretStr) or value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return repr(list(value))
    return f'"{value}"' if isinstance(value, str | Path) else repr(value)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"There is no settings file {file}; `hitstream config --example > {file}` writes one."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {file} cannot be read: {unread(error)}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The settings file {file} is not valid TOML: {error}.") from None


def _parts() -> dict[str, dict[str, Any]]:
    return {
        section: dict(part.model_fields)
        for section, field in Settings.model_fields.items()
        if isinstance(part := field.annotation, type) and issubclass(part, BaseModel)
    }


def _leaves() -> Iterator[tuple[str, str]]:
    for section, fields in _parts().items():
        for key in fields:
            yield section, key
    yield "conditions", ""


def variable(section: str, key: str = "") -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{section}__{key}".upper() if key else f"{PREFIX}{section}".upper()


def _is_secret(key: str, field: Any) -> bool:
    """Whether a setting may come from a file: secrets, and the DSN that holds a password."""
    return field.annotation is SecretStr or key == "dsn"


def _secret_files(environ: Mapping[str, str]) -> dict[tuple[str, str], str]:
    found = {}
    for section, fields in _parts().items():
        for key, field in fields.items():
            name = f"{variable(section, key)}_FILE"
            if _is_secret(key, field) and environ.get(name):
                try:
                    found[section, key] = Path(environ[name]).read_text(encoding="utf-8").strip()
                except (OSError, UnicodeDecodeError) as error:
                    raise ConfigError(f"{name} names {environ[name]}, which cannot be read: {unread(error)}.") from None
    return found


def _refuse_unknown(values: dict[str, Any], file: Path | None) -> None:
    parts = _parts()
    for section, content in values.items():
        if section not in parts and section != "conditions":
            raise ConfigError(f"{file}: unknown setting [{section}]{_nearest(section, [*parts, 'conditions'])}")
        if section == "conditions":
            rows = [row for row in content if isinstance(row, dict)] if isinstance(content, list) else []
            keys = [(key, list(Condition.model_fields)) for row in rows for key in row]
        elif isinstance(content, dict):
            keys = [(key, list(parts[section])) for key in content]
        else:
            raise ConfigError(f"{file}: {section} is a section; write [{section}] and its settings below it.")
        for key, known in keys:
            if key not in known:
                raise ConfigError(f"{file}: unknown setting {section}.{key}{_nearest(key, known)}")


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    secrets = {
        f"{variable(section, key)}_FILE"
        for section, fields in _parts().items()
        for key, field in fields.items()
        if _is_secret(key, field)
    }
    known = {variable(section, key) for section, key in _leaves()} | secrets
    for name in environ:
        # HITSTREAM_TEST_… steers the test suite, not the product.
        if name.upper().startswith(PREFIX) and name.upper() not in known and not name.startswith(f"{PREFIX}TEST_"):
            raise ConfigError(f"The environment has {name}, which is no setting{_nearest(name.upper(), sorted(known))}")


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}."


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"The setting {where} does not fit: {first['msg'].removeprefix('Value error, ')}."
