"""
Settings: arguments, then `BIZLOG_*` environment variables, then `bizlog.toml`.

Each setting is one field of `Settings`; its type and its bounds are the check, and all
faults of all three sources are reported in one list. OpenTelemetry's variables fill
source, version and environment where ours are unset. Reads the environment and one
file; opens nothing else.
"""

from __future__ import annotations

import os
import socket
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import unquote

import msgspec

from bizlog import diagnostics
from bizlog._wording import suggest, validation_reason
from bizlog.exceptions import BizlogError, ConfigurationError
from bizlog.privacy import is_policy
from bizlog.registry import Registry, registry
from bizlog.sinks import BaseSink, make_sink

CONFIG_FILE = "bizlog.toml"
DEFAULT_SINKS = ("file:./bizlog-events",)
HASH_KEY_BYTES = 16

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Everything that can be set, checked.

    Attributes:
        source: `event_source` of the events; by default the name of the program.
        environment: Deployment, as in `production`.
        service_version: Version of the service.
        sinks: The sinks, built.
        queue_events: Most events that wait for the pump, and again for the sinks.
        queue_bytes: Most bytes of them.
        overflow: What gives way when the queue is full.
        block_timeout: Seconds that `overflow="block"` may hold a caller.
        batch_size: Events that make a batch due.
        flush_interval: Seconds after which a smaller batch is due.
        sink_timeout: Seconds for each call into a sink.
        shutdown_timeout: Seconds that the end of the process waits for all sinks.
        dead_letters: Folder for what cannot be delivered.
        development: Raise invalid events at the call instead of dead-lettering them.
        strict: Refuse names outside the catalogue.
        privacy: Policy by field name, before the tags on the fields.
        hash_key: Key of the pseudonyms, at least 16 bytes; random for each process
            where it is not set.
        registry: The catalogue of event types.
    """

    source: Name
    environment: Name = "unknown"
    service_version: Name = "unknown"
    sinks: tuple[BaseSink, ...]
    queue_events: Count = 10_000
    queue_bytes: Count = 64 * 1024 * 1024
    overflow: Literal["drop_newest", "drop_oldest", "block"] = "drop_newest"
    block_timeout: Seconds = 1.0
    batch_size: Count = 100
    flush_interval: Seconds = 5.0
    sink_timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    shutdown_timeout: Seconds = 5.0
    dead_letters: str = "./bizlog-dead-letters"
    development: bool = False
    strict: bool = False
    privacy: dict[str, str] = {}
    hash_key: bytes | None = None
    registry: Registry = registry


# How each setting may be mended: what the message says after what was found.
_EXPECTED = {
    "source": "a name such as 'order-service'",
    "environment": "a name such as 'production'",
    "service_version": "text such as '1.4.2'",
    "sinks": "a list of sink URLs, tables or sinks, such as ['file:./events']",
    "queue_events": "a whole number of events, at least 1",
    "queue_bytes": "a whole number of bytes, at least 1",
    "overflow": "'drop_newest', 'drop_oldest' or 'block'",
    "block_timeout": "seconds, 0 or more",
    "batch_size": "a whole number of events, at least 1",
    "flush_interval": "seconds, 0 or more",
    "sink_timeout": "seconds, more than 0",
    "shutdown_timeout": "seconds, 0 or more",
    "dead_letters": "a folder",
    "development": "true or false",
    "strict": "true or false",
    "privacy": "policies by field name: keep, drop, mask, hash, hash_email, truncate:N",
    "hash_key": f"at least {HASH_KEY_BYTES} bytes",
    "registry": "a bizlog.Registry",
}
_NOT_IN_ENVIRONMENT = frozenset({"registry", "privacy"})


def load_settings(
    arguments: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] = ".",
) -> Settings:
    """
    Gather and check the settings.

    Args:
        arguments: What the caller passes; None counts as not passed.
        environ: Environment variables; by default the process's.
        folder: Where `bizlog.toml` is looked for.

    Raises:
        ConfigurationError: Lists every fault of every source.
        MissingExtraError: A sink's packages are not installed.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    found: dict[str, tuple[str, Any]] = {}
    for source in (
        _from_file(Path(folder) / CONFIG_FILE, problems),
        _from_opentelemetry(environ),
        _from_environment(environ),
        _from_arguments(arguments, problems),
    ):
        found.update(source)
    found.setdefault("sinks", ("default", DEFAULT_SINKS))
    found.setdefault("source", ("default", _default_source()))
    checked = {
        name: _check(name, origin, value, problems)
        for name, (origin, value) in found.items()
    }
    if problems:
        raise ConfigurationError(problems)
    return Settings(**checked)


def _from_arguments(
    arguments: Mapping[str, Any], problems: list[str]
) -> dict[str, tuple[str, Any]]:
    given = {name: value for name, value in arguments.items() if value is not None}
    return _known(given, "argument", problems)


def _from_file(path: Path, problems: list[str]) -> dict[str, tuple[str, Any]]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{path}: cannot be read as TOML: {error}")
        return {}
    return _known(table, str(path), problems)


def _known(
    values: Mapping[str, Any], origin: str, problems: list[str]
) -> dict[str, tuple[str, Any]]:
    found: dict[str, tuple[str, Any]] = {}
    for name, value in values.items():
        if name in _EXPECTED:
            found[name] = (origin, value)
        else:
            known = ", ".join(_EXPECTED)
            problems.append(
                f"{name} ({origin}): there is no such setting"
                f"{suggest(name, _EXPECTED)}; settings are {known}"
            )
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    found: dict[str, tuple[str, Any]] = {}
    _report_unknown(environ)
    for name in _EXPECTED.keys() - _NOT_IN_ENVIRONMENT:
        variable = f"BIZLOG_{name.upper()}"
        text = environ.get(variable, "").strip()
        if text:
            found[name] = (variable, _parse_variable(name, text))
    return found


def _report_unknown(environ: Mapping[str, str]) -> None:
    # Not an error: the variable may be another program's. Silence would be worse: who
    # sets BIZLOG_STRCT relies on it.
    known = {
        f"BIZLOG_{name.upper()}" for name in _EXPECTED.keys() - _NOT_IN_ENVIRONMENT
    }
    for variable in environ:
        if variable.startswith("BIZLOG_") and variable not in known:
            diagnostics.report(
                variable,
                f"{variable} is set, but there is no such setting"
                f"{suggest(variable, known)}",
            )


def _parse_variable(name: str, text: str) -> Any:
    if name == "sinks":
        return [url.strip() for url in text.split(",") if url.strip()]
    if name in {"development", "strict"}:
        words = {"1": True, "true": True, "yes": True, "on": True}
        words |= {"0": False, "false": False, "no": False, "off": False}
        return words.get(text.lower(), text)
    return text


def _from_opentelemetry(environ: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    variable = "OTEL_RESOURCE_ATTRIBUTES"
    pairs = (pair.partition("=") for pair in environ.get(variable, "").split(","))
    attributes = {key.strip(): unquote(value.strip()) for key, _, value in pairs}
    chosen = {
        "source": attributes.get("service.name"),
        "service_version": attributes.get("service.version"),
        "environment": attributes.get("deployment.environment.name")
        or attributes.get("deployment.environment"),
    }
    found = {name: (variable, value) for name, value in chosen.items() if value}
    if service := environ.get("OTEL_SERVICE_NAME", "").strip():
        found["source"] = ("OTEL_SERVICE_NAME", service)
    return found


def _default_source() -> str:
    program = Path(sys.argv[0] if sys.argv else "").stem
    return program if program not in {"", "-c", "-m", "__main__"} else _host()


def _host() -> str:
    return socket.gethostname() or "unknown"


def _check(name: str, origin: str, value: Any, problems: list[str]) -> Any:
    if name == "sinks":
        return _check_sinks(origin, value, problems)
    if name == "registry":
        wrong = not isinstance(value, Registry)
        return _refuse(name, origin, value, problems) if wrong else value
    if name == "hash_key":
        return _check_key(origin, value, problems)
    if name == "privacy":
        return _check_privacy(origin, value, problems)
    if name == "dead_letters" and isinstance(value, os.PathLike):
        value = os.fspath(cast("os.PathLike[str]", value))
    # Text is converted only where a source has nothing but text.
    lax = origin.startswith("BIZLOG_")
    try:
        return msgspec.convert(value, _types()[name], strict=not lax)
    except msgspec.ValidationError as error:
        reason, _ = validation_reason(error)
        _refuse(name, origin, value, problems, reason)
        return None


def _types() -> dict[str, Any]:
    fields = msgspec.structs.fields(Settings)
    return {field.name: field.type for field in fields}


def _refuse(
    name: str,
    origin: str,
    value: object,
    problems: list[str],
    reason: str | None = None,
) -> None:
    found = type(value).__name__
    shown = f"{value!r} ({found})" if name != "hash_key" else found
    why = f" ({reason})" if reason else ""
    problems.append(
        f"{name} ({origin}): expected {_EXPECTED[name]}, got {shown[:120]}{why}"
    )


def _check_sinks(
    origin: str, value: Any, problems: list[str]
) -> tuple[BaseSink, ...] | None:
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        _refuse("sinks", origin, cast("object", value), problems)
        return None
    if not value:
        problems.append(
            f"sinks ({origin}): the list is empty; name at least one sink, or 'null:' "
            "to discard events"
        )
    built: list[BaseSink] = []
    for index, spec in enumerate(cast("Sequence[object]", value)):
        try:
            built.append(make_sink(spec))
        except BizlogError as error:
            problems.append(f"sinks[{index}] ({origin}): {error}")
        except Exception as error:  # noqa: BLE001  # the sink's own constructor
            kind = type(error).__name__
            problems.append(f"sinks[{index}] ({origin}): {kind}: {error}")
    return tuple(built)


def _check_key(origin: str, value: Any, problems: list[str]) -> bytes | None:
    key = value.encode() if isinstance(value, str) else value
    if not isinstance(key, bytes) or len(key) < HASH_KEY_BYTES:
        _refuse("hash_key", origin, value, problems)
        return None
    return key


def _check_privacy(
    origin: str, value: Any, problems: list[str]
) -> dict[str, str] | None:
    if not isinstance(value, Mapping):
        _refuse("privacy", origin, value, problems)
        return None
    policies = cast("Mapping[object, object]", value)
    for name, policy in policies.items():
        if not (isinstance(policy, str) and is_policy(policy)):
            problems.append(
                f"privacy[{name!r}] ({origin}): expected keep, drop, mask, hash, "
                f"hash_email or truncate:N, got {policy!r} ({type(policy).__name__})"
            )
    return {str(name): str(policy) for name, policy in policies.items()}
