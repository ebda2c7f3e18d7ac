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
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import msgspec

from bizlog import diagnostics
from bizlog._detectors import scrub
from bizlog._wording import describe_error, suggest, validation_reason
from bizlog.exceptions import BizlogError, ConfigurationError
from bizlog.privacy import is_policy
from bizlog.pseudonyms import HashKeys, is_key_id
from bizlog.registry import MAX_NAME, Registry, registry
from bizlog.sinks import BaseSink, make_sink

CONFIG_FILE = "bizlog.toml"
DEFAULT_SINKS = ("file:./bizlog-events",)
HASH_KEY_BYTES = 16
HASH_KEY_VARIABLE = "BIZLOG_HASH_KEY"
HASH_KEY_FILE_VARIABLE = "BIZLOG_HASH_KEY_FILE"

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Everything that can be set, checked.

    Attributes:
        source: `event_source` of the events; by default the name of the program.
        environment: Deployment, as in `production`.
        service_version: Version of the service.
        sinks: The sinks, built.
        queue_events: Most events that wait in memory for bizlog's thread, and most
            that a slow sink may lag behind the fastest one.
        queue_bytes: Most bytes of them.
        overflow: What gives way when the queue is full.
        block_timeout: Seconds that `overflow="block"` may hold a caller.
        batch_size: Events that make a batch due.
        flush_interval: Seconds after which a smaller batch is due.
        sink_timeout: Seconds for each call into a sink.
        delivery_deadline: Seconds after which an event that a sink does not take goes
            to the dead letters.
        max_in_flight: Batches under way to a sink that allows more than one.
        shutdown_timeout: Seconds that the end of the process waits for all sinks.
        handle_sigterm: Deliver at SIGTERM, before the handler that is there is called;
            for processes that no server ends. Only the main thread can set it up.
        dead_letters: Folder for what cannot be delivered.
        dead_letters_max_bytes: Most bytes that its files may take together.
        journal: Folder in which accepted events outlive the process; None keeps them
            in memory.
        journal_sync: `normal`: what is in the journal survives the death of the
            process; `full`: that of the machine, too.
        journal_max_bytes: Most bytes of events that wait in it.
        journal_max_age: Seconds after which events that a dead process left behind
            are given up; None never does.
        development: Raise invalid events at the call instead of dead-lettering them.
        disabled: Switch everything off: calls do nothing, no sink is built.
        strict: Refuse names outside the catalogue.
        privacy: Policy by field name, before the tags on the fields.
        hash_key: Key of the pseudonyms, at least 16 bytes, or a table of such keys by
            id, the last one in force; random for each process where it is not set.
        detectors: What is masked where no policy applies: `email`, `card`, `token`.
        allow: Names of the custom properties that may pass; all where it is not set.
        registry: The catalogue of event types.
        metrics_registry: The `prometheus_client.CollectorRegistry` that shows the
            metrics; None takes the global one for the process-wide client, and none
            for other clients.
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
    delivery_deadline: Annotated[float, msgspec.Meta(gt=0)] = 86_400.0
    max_in_flight: Count = 8
    shutdown_timeout: Seconds = 5.0
    journal: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    journal_sync: Literal["normal", "full"] = "normal"
    journal_max_bytes: Count = 1024 * 1024 * 1024
    journal_max_age: Annotated[float, msgspec.Meta(gt=0)] | None = None
    handle_sigterm: bool = False
    dead_letters: Annotated[str, msgspec.Meta(min_length=1)] = "./bizlog-dead-letters"
    dead_letters_max_bytes: Count = 1024 * 1024 * 1024
    development: bool = False
    disabled: bool = False
    strict: bool = False
    privacy: dict[str, str] = {}
    hash_key: HashKeys | None = None
    detectors: tuple[Literal["email", "card", "token"], ...] = ()
    allow: tuple[str, ...] | None = None
    registry: Registry = registry
    metrics_registry: Any = None


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
    "delivery_deadline": "seconds, more than 0",
    "max_in_flight": "a whole number of batches, at least 1",
    "shutdown_timeout": "seconds, 0 or more",
    "journal": "a folder",
    "journal_sync": "'normal' or 'full'",
    "journal_max_bytes": "a whole number of bytes, at least 1",
    "journal_max_age": "seconds, more than 0",
    "handle_sigterm": "true or false",
    "dead_letters": "a folder",
    "dead_letters_max_bytes": "a whole number of bytes, at least 1",
    "development": "true or false",
    "disabled": "true or false",
    "strict": "true or false",
    "privacy": "policies by field name: keep, drop, mask, hash, hash_email, truncate:N",
    "hash_key": f"at least {HASH_KEY_BYTES} bytes, or a table of such keys by id",
    "detectors": "a list out of 'email', 'card' and 'token'",
    "allow": "a list of names of custom properties",
    "registry": "a bizlog.Registry",
    "metrics_registry": "a prometheus_client.CollectorRegistry",
}
_NOT_IN_ENVIRONMENT = frozenset({"registry", "privacy", "metrics_registry"})


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
        ConfigurationError: Lists every fault of every source; a sink whose packages
            are not installed is one of them.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    found: dict[str, tuple[str, Any]] = {}
    for source in (
        _from_opentelemetry(environ),
        _from_file(_config_file(folder), problems),
        _from_environment(environ, problems),
        _from_arguments(arguments, problems),
    ):
        found.update(source)
    found.setdefault("sinks", ("default", DEFAULT_SINKS))
    disabled = found.get("disabled", ("", False))[1] is True
    found.setdefault("source", ("default", _default_source()))
    checked: dict[str, Any] = {
        name: _check(name, origin, value, problems)
        for name, (origin, value) in found.items()
        if not (disabled and name == "sinks")
    }
    if problems:
        raise ConfigurationError(problems)
    checked.setdefault("sinks", ())
    return Settings(**checked)


def _from_arguments(
    arguments: Mapping[str, Any], problems: list[str]
) -> dict[str, tuple[str, Any]]:
    given = {name: value for name, value in arguments.items() if value is not None}
    return _known(given, "argument", problems)


def _config_file(folder: str | os.PathLike[str]) -> str:
    return os.path.normpath(os.path.join(folder, CONFIG_FILE))  # noqa: PTH118  # lean import


def _from_file(path: str, problems: list[str]) -> dict[str, tuple[str, Any]]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # lean import
            text = file.read().decode()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read as TOML: {error}")
        return {}
    import tomllib  # noqa: PLC0415  # only where there is a file

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}: cannot be read as TOML: {error}")
        return {}
    return _known(table, path, problems)


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


def _from_environment(
    environ: Mapping[str, str], problems: list[str]
) -> dict[str, tuple[str, Any]]:
    found = _key_file(environ, problems)
    _report_unknown(environ)
    for name in _EXPECTED.keys() - _NOT_IN_ENVIRONMENT:
        variable = f"BIZLOG_{name.upper()}"
        text = environ.get(variable, "").strip()
        if text:
            found[name] = (variable, _parse_variable(name, text))
    return found


def _key_file(
    environ: Mapping[str, str], problems: list[str]
) -> dict[str, tuple[str, Any]]:
    path = environ.get(HASH_KEY_FILE_VARIABLE, "").strip()
    if path and environ.get(HASH_KEY_VARIABLE, "").strip():
        problems.append(
            f"hash_key: {HASH_KEY_VARIABLE} and {HASH_KEY_FILE_VARIABLE} are both set; "
            "keep one of them"
        )
    return {"hash_key": (HASH_KEY_FILE_VARIABLE, path)} if path else {}


# Read by the sinks themselves, where they are built.
_SECRETS_OF_SINKS = frozenset({"BIZLOG_API_KEY", "BIZLOG_EVENTHUB_CONNECTION_STRING"})


def _report_unknown(environ: Mapping[str, str]) -> None:
    # Not an error: the variable may be another program's. Silence would be worse: who
    # sets BIZLOG_STRCT relies on it.
    known = {
        f"BIZLOG_{name.upper()}" for name in _EXPECTED.keys() - _NOT_IN_ENVIRONMENT
    } | {HASH_KEY_FILE_VARIABLE, *_SECRETS_OF_SINKS}
    for variable in environ:
        if variable.startswith("BIZLOG_") and variable not in known:
            diagnostics.report(
                variable,
                f"{variable} is set, but there is no such setting"
                f"{suggest(variable, known)}",
            )


def _parse_variable(name: str, text: str) -> Any:
    if name in {"sinks", "detectors", "allow"}:
        return [part.strip() for part in text.split(",") if part.strip()]
    if name in {"development", "disabled", "handle_sigterm", "strict"}:
        words = {"1": True, "true": True, "yes": True, "on": True}
        words |= {"0": False, "false": False, "no": False, "off": False}
        return words.get(text.lower(), text)
    return text


def _from_opentelemetry(environ: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    variable = "OTEL_RESOURCE_ATTRIBUTES"
    attributes = _resource_attributes(environ.get(variable, ""))
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


def _resource_attributes(text: str) -> dict[str, str]:
    if not text:
        return {}
    from urllib.parse import unquote  # noqa: PLC0415  # only where there is something

    pairs = (pair.partition("=") for pair in text.split(","))
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}


def _default_source() -> str:
    path = sys.argv[0] if sys.argv else ""
    program = os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122  # lean import
    named = program not in {"", "-c", "-m", "__main__"}
    return program[:MAX_NAME] if named else _host()


def _host() -> str:
    return socket.gethostname() or "unknown"


def _check(name: str, origin: str, value: Any, problems: list[str]) -> Any:
    if name == "sinks":
        return _check_sinks(origin, value, problems)
    if name in {"registry", "metrics_registry"}:
        wrong = not isinstance(value, _registry_class(name))
        return _refuse(name, origin, value, problems) if wrong else value
    if name == "hash_key":
        return _check_key(origin, value, problems)
    if name == "privacy":
        return _check_privacy(origin, value, problems)
    if name == "dead_letters" and isinstance(value, os.PathLike):
        value = os.fspath(cast("os.PathLike[str]", value))
    # Text is converted only where a source has nothing but text.
    lax = origin == f"BIZLOG_{name.upper()}"
    try:
        return msgspec.convert(value, _types()[name], strict=not lax)
    except msgspec.ValidationError as error:
        reason, _ = validation_reason(error)
        _refuse(name, origin, value, problems, reason)
        return None


def _registry_class(name: str) -> type | tuple[()]:
    if name == "registry":
        return Registry
    # Who has one of Prometheus's has imported its module; we need not.
    module = sys.modules.get("prometheus_client")
    return () if module is None else module.CollectorRegistry


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
    # A list of sinks that is none may be a URL with a password.
    text = "" if name == "sinks" else f"{_readable_repr(value)} "
    shown = f"{scrub(text)[:100]}({type(value).__name__})"
    why = f" ({reason})" if reason else ""
    problems.append(f"{name} ({origin}): expected {_EXPECTED[name]}, got {shown}{why}")


def _readable_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # the value's own
        return "a value that cannot be shown"


def _check_sinks(
    origin: str, value: Any, problems: list[str]
) -> tuple[BaseSink, ...] | None:
    one = isinstance(value, str | bytes | bytearray | Mapping)
    if one or not isinstance(value, Sequence):
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
            problems.append(f"sinks[{index}] ({origin}): {scrub(str(error))}")
        except Exception as error:  # noqa: BLE001  # the sink's own constructor
            problems.append(f"sinks[{index}] ({origin}): {describe_error(error)}")
    return tuple(built)


# The keys of the pseudonyms. Not even the ids are shown: who confuses the two would
# read a key in the message.


def _check_key(origin: str, value: Any, problems: list[str]) -> HashKeys | None:
    try:
        return _hash_keys(_written_key(origin, value))
    except ValueError as error:
        expected = _EXPECTED["hash_key"]
        problems.append(f"hash_key ({origin}): expected {expected}, got {error}")
        return None


def _written_key(origin: str, value: Any) -> Any:
    """Read what an environment variable, or the file it names, says of keys."""
    if origin == HASH_KEY_FILE_VARIABLE:
        text = _read_key_file(value)
    elif origin == HASH_KEY_VARIABLE:
        text = value.encode("utf-8", "surrogateescape")
    else:
        return value
    return _key_table(text) if text.startswith(b"{") else text


def _read_key_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # lean import
            return file.read().strip()
    except OSError as error:
        raise ValueError(f"a file that cannot be read: {error.strerror}") from None


def _key_table(text: bytes) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.DecodeError:
        raise ValueError(
            "text that begins with '{' and is no JSON object of texts"
        ) from None


def _hash_keys(value: Any) -> HashKeys:
    if not isinstance(value, Mapping):
        return HashKeys({"": _key_bytes(value)})
    table = cast("Mapping[Any, Any]", value)
    if not table:
        raise ValueError("an empty table")
    if not all(isinstance(key_id, str) and is_key_id(key_id) for key_id in table):
        raise ValueError(
            "an id that is not of 1 to 32 letters, digits, hyphens and underscores"
        )
    return HashKeys({key_id: _key_bytes(key) for key_id, key in table.items()})


def _key_bytes(value: Any) -> bytes:
    key = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    if not isinstance(key, bytes):
        raise ValueError(type(value).__name__)  # noqa: TRY004  # one list of problems
    if len(key) < HASH_KEY_BYTES:
        raise ValueError(f"{type(value).__name__} of {len(key)} bytes")
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
