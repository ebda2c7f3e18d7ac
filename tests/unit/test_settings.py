"""Settings: where they come from, what they become, and every fault in one list."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import msgspec
import prometheus_client
import pytest

from bizlog import settings as module
from bizlog.exceptions import ConfigurationError
from bizlog.registry import Registry, registry
from bizlog.settings import Settings, load_settings
from bizlog.sinks import BaseSink
from bizlog.testing import MemorySink

KEY = "k" * 32


class SeedForm:
    """A sink in the seed's form."""

    async def start(self): ...
    async def stop(self): ...
    async def send(self, event): ...
    async def send_batch(self, events): ...
    async def flush(self): ...


class BytesPath:
    """A path that is bytes, which no setting takes."""

    def __fspath__(self):
        return b"letters"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Run where nothing is configured."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def reports(monkeypatch):
    """Collect what the settings have to say beside faults."""
    said = []
    monkeypatch.setattr(module.diagnostics, "report", lambda _, text: said.append(text))
    return said


def write_file(text):
    """Write bizlog.toml."""
    Path("bizlog.toml").write_text(text, encoding="utf-8")


def load(environ=None, /, **arguments):
    """Load settings from arguments and these variables alone, with a sink."""
    arguments.setdefault("sinks", [MemorySink()])
    return load_settings(arguments, environ or {})


def problems(environ=None, /, **arguments):
    """Have settings refused, and read the list."""
    with pytest.raises(ConfigurationError) as caught:
        load(environ, **arguments)
    return list(caught.value.problems)


# Every setting


def test_the_defaults_are_those_of_the_readme():
    """What is not set is as documented."""
    found = load(source="shop")

    assert (found.environment, found.service_version) == ("unknown", "unknown")
    assert (found.queue_events, found.queue_bytes) == (10_000, 64 * 1024 * 1024)
    assert (found.overflow, found.block_timeout) == ("drop_newest", 1.0)
    assert (found.batch_size, found.flush_interval) == (100, 5.0)
    assert (found.sink_timeout, found.shutdown_timeout) == (10.0, 5.0)
    assert found.dead_letters == "./bizlog-dead-letters"
    assert (found.development, found.disabled, found.strict) == (False, False, False)
    assert (found.privacy, found.hash_key) == ({}, None)
    assert (found.detectors, found.allow) == ((), None)
    assert found.registry is registry


def test_without_any_setting_events_go_to_files():
    """The sink of nobody's choice is a folder here, not made before it is needed."""
    found = load_settings({}, {})

    assert [sink.name for sink in found.sinks] == ["file"]
    assert list(Path().iterdir()) == []


def test_every_setting_is_explained_and_can_be_mended():
    """Each field has a line of documentation, and words for its faults."""
    fields = Settings.__struct_fields__

    assert set(module._EXPECTED) == set(fields)
    told = re.findall(r"^ *(\w+): ", Settings.__doc__, re.MULTILINE)
    assert set(fields) <= set(told)


def test_settings_cannot_be_changed():
    """Who wants others configures anew."""
    with pytest.raises(AttributeError):
        load().batch_size = 5


# (setting, as TOML, as a variable, as it is kept)
WAYS = [
    ("source", '"shop"', "shop", "shop"),
    ("environment", '"blue"', "blue", "blue"),
    ("service_version", '"1.4"', "1.4", "1.4"),
    ("queue_events", "5", "5", 5),
    ("queue_bytes", "5", "5", 5),
    ("overflow", '"block"', "block", "block"),
    ("block_timeout", "0", "0", 0.0),
    ("batch_size", "5", " 5 ", 5),
    ("flush_interval", "0.5", "0.5", 0.5),
    ("sink_timeout", "2", "2", 2.0),
    ("shutdown_timeout", "2.5", "2.5", 2.5),
    ("dead_letters", '"./letters"', "./letters", "./letters"),
    ("development", "true", "true", True),
    ("disabled", "false", "0", False),
    ("strict", "true", "1", True),
    ("detectors", '["email", "card"]', "email, card", ("email", "card")),
    ("allow", '["voucher", "note"]', "voucher,note", ("voucher", "note")),
]


@pytest.mark.parametrize(("name", "toml", "text", "kept"), WAYS)
def test_a_setting_may_stand_anywhere(name, toml, text, kept):
    """Argument, variable and file say the same in their own ways."""
    by_argument = getattr(load(**{name: kept}), name)
    by_variable = getattr(load({f"BIZLOG_{name.upper()}": text}), name)
    write_file(f"{name} = {toml}\n")
    by_file = getattr(load(), name)

    assert by_argument == by_variable == by_file == kept
    assert type(by_argument) is type(by_variable) is type(by_file) is type(kept)


def test_the_nearer_source_wins():
    """An argument stands before a variable, and that before the file."""
    write_file('source = "file"\nenvironment = "file"\nservice_version = "file"\n')
    environ = {"BIZLOG_SOURCE": "variable", "BIZLOG_ENVIRONMENT": "variable"}

    found = load(environ, source="argument")

    assert found.source == "argument"
    assert found.environment == "variable"
    assert found.service_version == "file"


def test_none_is_not_passed():
    """A caller may pass its own optional argument on."""
    write_file("batch_size = 7\n")

    assert load(batch_size=None, source=None).batch_size == 7


def test_a_false_value_is_passed():
    """Only None means not passed: what switches off is heard."""
    write_file("strict = true\nflush_interval = 3\n")

    found = load(strict=False, flush_interval=0)

    assert (found.strict, found.flush_interval) == (False, 0.0)


def test_what_a_nearer_source_says_replaces_a_fault():
    """A value that is not used is not held against anybody."""
    write_file('batch_size = "many"\n')

    assert load(batch_size=5).batch_size == 5


def test_environment_and_folder_are_the_processs_own(monkeypatch, tmp_path):
    """Unless told otherwise, os.environ and the working directory count."""
    write_file("batch_size = 7\n")
    monkeypatch.setenv("BIZLOG_SOURCE", "variable")

    found = load_settings({"sinks": [MemorySink()]})

    assert (found.source, found.batch_size) == ("variable", 7)


def test_the_file_is_looked_for_where_told(tmp_path):
    """Another folder may be given, as text or as a path."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "bizlog.toml").write_text("batch_size = 7\n")

    for given in (folder, str(folder)):
        found = load_settings({"sinks": [MemorySink()]}, {}, given)
        assert found.batch_size == 7


# Faults


BAD = [
    ("source", "", "str"),
    ("source", 5, "int"),
    ("environment", ["blue"], "list"),
    ("service_version", 1.4, "float"),
    ("queue_events", 0, "int"),
    ("queue_events", True, "bool"),
    ("queue_bytes", 1.5, "float"),
    ("overflow", "explode", "str"),
    ("overflow", 5, "int"),
    ("block_timeout", -1, "int"),
    ("block_timeout", float("nan"), "float"),
    ("batch_size", "100", "str"),
    ("flush_interval", "soon", "str"),
    ("sink_timeout", 0, "int"),
    ("shutdown_timeout", -0.1, "float"),
    ("dead_letters", 5, "int"),
    ("dead_letters", BytesPath(), "bytes"),
    ("development", 1, "int"),
    ("disabled", "yes", "str"),
    ("strict", "true", "str"),
    ("detectors", ["email", "phone"], "list"),
    ("detectors", "email", "str"),
    ("allow", [5], "list"),
    ("privacy", "mask", "str"),
    ("privacy", ["mask"], "list"),
    ("registry", {}, "dict"),
    ("metrics_registry", Registry(), "Registry"),
    ("sinks", "file:./events", "str"),
    ("sinks", {"type": "file"}, "dict"),
    ("sinks", {"null:"}, "set"),
    ("sinks", MemorySink(), "MemorySink"),
]


@pytest.mark.parametrize(
    ("name", "value", "kind"), BAD, ids=[f"{name}-{kind}" for name, _, kind in BAD]
)
def test_a_fault_names_setting_origin_type_and_remedy(name, value, kind):
    """One sentence says what is wrong where, and how to mend it."""
    (problem,) = problems(**{name: value})

    assert problem.startswith(f"{name} (argument): expected {module._EXPECTED[name]}, ")
    assert f"({kind})" in problem
    assert len(problem) < 400


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("BIZLOG_BATCH_SIZE", "many"),
        ("BIZLOG_BATCH_SIZE", "1.5"),
        ("BIZLOG_QUEUE_EVENTS", "0"),
        ("BIZLOG_FLUSH_INTERVAL", "soon"),
        ("BIZLOG_SINK_TIMEOUT", "-1"),
        ("BIZLOG_OVERFLOW", "explode"),
        ("BIZLOG_STRICT", "perhaps"),
        ("BIZLOG_DEVELOPMENT", "2"),
        ("BIZLOG_SOURCE", "x" * 201),
    ],
)
def test_a_fault_of_the_environment_names_the_variable(variable, text):
    """Whoever reads it knows which variable to change."""
    name = variable.removeprefix("BIZLOG_").lower()

    (problem,) = problems({variable: text})

    assert problem.startswith(f"{name} ({variable}): expected {module._EXPECTED[name]}")
    assert f"'{text}' (str)"[:100] in problem


def test_a_fault_of_the_file_names_the_file():
    """Text is not taken for a number where the file could have said a number."""
    write_file('batch_size = "100"\n')

    (problem,) = problems()

    assert problem.startswith("batch_size (")
    assert "bizlog.toml): expected a whole number of events" in problem
    assert "'100' (str)" in problem


def test_all_faults_of_all_sources_come_in_one_list():
    """Nobody has to start the program again to learn of the next mistake."""
    write_file('batchsize = 5\nstrict = "x"\n')
    environ = {"BIZLOG_QUEUE_EVENTS": "many"}

    found = problems(
        environ,
        sinks=["nowhere:", 5],
        overflow="explode",
        privacy={"a": "erase", "b": 5},
        hash_key="short",
        colour="red",
    )

    named = sorted(problem.partition(" (")[0] for problem in found)
    assert named == sorted(
        [
            *("batchsize", "colour", "strict", "queue_events", "overflow", "hash_key"),
            *("privacy['a']", "privacy['b']", "sinks[0]", "sinks[1]"),
        ]
    )


@pytest.mark.parametrize("origin", ["argument", "file"])
def test_a_setting_that_does_not_exist_is_a_fault(origin):
    """The message suggests the nearest one, and lists them all."""
    if origin == "file":
        write_file("flush_intervall = 5\n")
        (problem,) = problems()
    else:
        (problem,) = problems(flush_intervall=5)

    assert "there is no such setting; did you mean 'flush_interval'?" in problem
    assert [name for name in Settings.__struct_fields__ if name not in problem] == []


# The file


@pytest.mark.parametrize(
    "content",
    [b"batch_size = ", b"[sinks", b"a = 1\na = 2\n", b'source = "\xff"\n', b"\x00"],
)
def test_a_broken_file_is_a_fault_like_others(content):
    """The file is named with what is wrong in it; other faults are still told."""
    Path("bizlog.toml").write_bytes(content)

    broken, other = problems(batch_size=0)

    assert "bizlog.toml: cannot be read as TOML: " in broken
    assert other.startswith("batch_size (argument)")


def test_a_file_that_cannot_be_read_is_a_fault():
    """A setting that is meant but not reached is not silently left out."""
    Path("bizlog.toml").mkdir()

    (problem,) = problems()

    assert "bizlog.toml: cannot be read as TOML: " in problem
    assert "directory" in problem.lower()


def test_a_missing_folder_is_no_fault(tmp_path):
    """Where there is no file there are no settings."""
    nowhere = tmp_path / "nowhere"

    assert load_settings({"sinks": [MemorySink()]}, {}, nowhere).batch_size == 100


def test_the_file_has_tables_for_sinks_and_policies():
    """Every option can be set in a file."""
    write_file(
        'sinks = ["null:", {type = "null"}]\n'
        '[privacy]\nnote = "mask"\nquery_text = "truncate:64"\n'
    )

    found = load_settings({}, {})

    assert [sink.name for sink in found.sinks] == ["null", "null"]
    assert found.privacy == {"note": "mask", "query_text": "truncate:64"}


# The environment


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_a_blank_variable_is_not_set(blank):
    """Compose files and charts pass empty variables for what nobody chose."""
    write_file("batch_size = 7\n")

    assert load({"BIZLOG_BATCH_SIZE": blank}).batch_size == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", True),
        ("true", True),
        ("True", True),
        ("YES", True),
        ("on", True),
        ("0", False),
        ("false", False),
        ("no", False),
        ("OFF", False),
    ],
)
def test_booleans_of_the_environment_are_words(text, value):
    """The usual words in any spelling; the file's opposite is overruled."""
    write_file(f"strict = {str(not value).lower()}\n")

    assert load({"BIZLOG_STRICT": text}).strict is value


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("null:", ["null"]),
        (" null: , console:stderr ,", ["null", "console"]),
        ("console:stdout,null:,console:stderr", ["console", "null", "console"]),
    ],
)
def test_sinks_of_the_environment_are_separated_by_commas(text, names):
    """Blanks around them and an empty end do not matter."""
    found = load_settings({}, {"BIZLOG_SINKS": text})

    assert [sink.name for sink in found.sinks] == names


def test_a_list_of_commas_names_no_sink():
    """Whoever set the variable meant something: the default would hide the slip."""
    with pytest.raises(ConfigurationError, match=r"sinks \(BIZLOG_SINKS\).*empty"):
        load_settings({}, {"BIZLOG_SINKS": " , "})


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [("BIZLOG_STRCT", "BIZLOG_STRICT"), ("BIZLOG_SINK", "BIZLOG_SINKS")],
)
def test_a_variable_that_sets_nothing_is_reported(reports, variable, nearest):
    """It may be another program's, so it is no fault; silence would be worse."""
    load({variable: "1"})

    assert reports == [
        f"{variable} is set, but there is no such setting; did you mean {nearest!r}?"
    ]


@pytest.mark.parametrize(
    "variable", ["BIZLOG_API_KEY", "BIZLOG_EVENTHUB_CONNECTION_STRING"]
)
def test_the_secrets_of_sinks_are_known(reports, variable):
    """Sinks read these themselves: they are no settings, and no slips."""
    load({variable: "x"})

    assert reports == []


@pytest.mark.parametrize("variable", ["BIZLOG_REGISTRY", "BIZLOG_METRICS_REGISTRY"])
def test_objects_cannot_come_from_the_environment(reports, variable):
    """A variable for what only Python can make is reported, too."""
    assert load({variable: "x"}).registry is registry
    assert len(reports) == 1


def test_variables_of_others_are_left_alone(reports):
    """Only our own prefix is ours."""
    load({"BIZLOGS": "1", "PATH": "/bin", "bizlog_strict": "1", "OTEL_SDK": "1"})

    assert reports == []


# OpenTelemetry


def test_opentelemetry_names_the_service():
    """Its attributes fill name, version and environment, percent-decoded."""
    attributes = (
        "service.name=shop, service.version = 1.4 ,"
        "deployment.environment=prod%20eu,host.name=h"
    )

    found = load({"OTEL_RESOURCE_ATTRIBUTES": attributes})

    assert found.source == "shop"
    assert found.service_version == "1.4"
    assert found.environment == "prod eu"


def test_the_service_name_has_a_variable_of_its_own():
    """OTEL_SERVICE_NAME stands before the attribute, as OpenTelemetry says."""
    found = load(
        {
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=attribute",
            "OTEL_SERVICE_NAME": " name ",
        }
    )

    assert found.source == "name"


def test_the_newer_attribute_for_the_environment_comes_first():
    """deployment.environment.name replaced deployment.environment."""
    found = load(
        {
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=new,"
            "deployment.environment=old"
        }
    )

    assert found.environment == "new"


@pytest.mark.parametrize("text", ["", ",", "=", "service.name", "service.name=", "x=y"])
def test_attributes_that_say_nothing_change_nothing(text, monkeypatch):
    """A malformed or empty pair is as if it were not there."""
    monkeypatch.setattr(sys, "argv", ["shop.py"])

    found = load({"OTEL_RESOURCE_ATTRIBUTES": text, "OTEL_SERVICE_NAME": " "})

    assert (found.source, found.environment) == ("shop", "unknown")


def test_our_own_variables_stand_before_opentelemetrys():
    """Its variables only fill what ours leave unset."""
    found = load(
        {
            "BIZLOG_SOURCE": "ours",
            "BIZLOG_ENVIRONMENT": "ours",
            "OTEL_SERVICE_NAME": "theirs",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=theirs,"
            "service.version=theirs",
        },
    )

    assert (found.source, found.environment) == ("ours", "ours")
    assert found.service_version == "theirs"


def test_a_fault_of_opentelemetrys_variables_names_them():
    """What is too long for us is told by the variable it came from."""
    (problem,) = problems({"OTEL_SERVICE_NAME": "x" * 201})

    assert problem.startswith("source (OTEL_SERVICE_NAME): expected a name")


# Who speaks


@pytest.mark.parametrize(
    ("argv", "source"),
    [
        (["/srv/shop/order_service.py"], "order_service"),
        (["/usr/bin/gunicorn"], "gunicorn"),
        (["-c"], "the-host"),
        (["-m"], "the-host"),
        ([""], "the-host"),
        ([], "the-host"),
        (["/srv/shop/__main__.py"], "the-host"),
    ],
)
def test_the_program_names_the_source(monkeypatch, argv, source):
    """Where the program has no name of its own, the host stands for it."""
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(module.socket, "gethostname", lambda: "the-host")

    assert load().source == source


def test_without_any_name_the_source_is_unknown(monkeypatch):
    """A name is never empty."""
    monkeypatch.setattr(sys, "argv", [""])
    monkeypatch.setattr(module.socket, "gethostname", lambda: "")

    assert load().source == "unknown"


# Sinks


def test_sinks_may_be_urls_tables_and_objects():
    """All kinds stand side by side, in their order, in a list or a tuple."""
    mine = MemorySink()
    specs = ["null:", {"type": "console"}, mine, SeedForm()]

    for given in (specs, tuple(specs)):
        found = load(sinks=given).sinks
        assert [sink.name for sink in found] == [
            "null",
            "console",
            "memory",
            "seedform",
        ]
        assert found[2] is mine
        assert all(isinstance(sink, BaseSink) for sink in found)


def test_an_empty_list_of_sinks_is_a_fault_with_two_remedies():
    """Whoever wants no events says so; nothing is discarded by an oversight."""
    (problem,) = problems(sinks=[])

    assert problem == (
        "sinks (argument): the list is empty; name at least one sink, or 'null:' to "
        "discard events"
    )


def test_each_wrong_sink_is_told_by_its_place():
    """The others are built all the same, so that all faults are found."""
    found = problems(sinks=["fiel:./x", "null:", "file:./x?rotate_byte=1", 5, {}])

    assert [problem.partition(" (")[0] for problem in found] == [
        "sinks[0]",
        "sinks[2]",
        "sinks[3]",
        "sinks[4]",
    ]
    unknown, option, no_sink, no_type = found
    assert "did you mean 'file'?" in unknown
    assert "did you mean 'rotate_bytes'?" in option
    assert "got int: a sink has the async methods" in no_sink
    assert "needs 'type'" in no_type


def test_a_sink_that_cannot_be_built_is_a_fault_like_others():
    """What its constructor raises is told by its place, with the kind of error."""
    Path("taken").write_text("a file, not a folder")

    (problem,) = problems(sinks=["null:", "file:./taken/events?compression=odd"])

    assert problem.startswith("sinks[1] (argument): sink file: option 'compression'")


def test_an_error_of_a_constructor_leaves_as_ours(monkeypatch):
    """A foreign exception neither escapes nor hides the faults of other settings."""

    def fail(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bizlog_handlers.null.NullSink.__init__", fail)

    first, second = problems(sinks=["null:"], batch_size=0)

    assert {first, second} >= {
        "sinks[0] (argument): OSError: [Errno 28] No space left on device"
    }


def test_missing_packages_are_a_fault_with_their_command(monkeypatch):
    """The list says what to install, beside whatever else is wrong."""
    monkeypatch.setitem(sys.modules, "zstandard", None)

    (problem,) = problems(sinks=["file:./x?compression=zstd"])

    assert problem.startswith("sinks[0] (argument): ")
    assert "pip install 'bizlog[zstd]'" in problem


def test_switched_off_no_sink_is_built():
    """`disabled` needs no destination, reachable or not; other faults still count."""
    for found in (
        load(sinks=["nowhere:", 5], disabled=True),
        load_settings({}, {"BIZLOG_DISABLED": "1", "BIZLOG_SINKS": "nowhere:"}),
    ):
        assert found.disabled
        assert found.sinks == ()
    assert len(problems(disabled=True, batch_size=0)) == 1


def test_a_switch_that_is_no_switch_switches_nothing_off():
    """A misspelt `disabled` is a fault beside those of the sinks."""
    found = problems({"BIZLOG_DISABLED": "perhaps"}, sinks=["nowhere:"])

    assert len(found) == 2


# Folders, policies, keys, registries


@pytest.mark.parametrize("given", ["letters", Path("letters")])
def test_the_dead_letters_may_be_a_path(given):
    """Text and path objects are the same folder."""
    assert load(dead_letters=given).dead_letters == "letters"


@pytest.mark.parametrize(
    "policy",
    ["keep", "drop", "mask", "hash", "hash_email", "truncate", "truncate:1"],
)
def test_a_policy_is_taken_for_any_field(policy):
    """Names are the caller's; policies are those documented."""
    assert load(privacy={"any name": policy}).privacy == {"any name": policy}


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ("erase", "'erase' (str)"),
        ("Mask", "'Mask' (str)"),
        ("truncate:0", "'truncate:0' (str)"),
        ("truncate:x", "'truncate:x' (str)"),
        ("", "'' (str)"),
        (None, "None (NoneType)"),
        (5, "5 (int)"),
    ],
)
def test_a_policy_that_does_not_exist_is_a_fault(policy, shown):
    """A policy that would protect nothing is told with its field."""
    (problem,) = problems(privacy={"phone": policy, "note": "mask"})

    assert problem.startswith("privacy['phone'] (argument): expected keep, drop, mask")
    assert problem.endswith(f"got {shown}")


@pytest.mark.parametrize("key", ["k" * 16, b"k" * 16, "ü" * 8, "\ud800" * 6])
def test_a_key_is_text_or_bytes(key):
    """Its length counts in bytes; no text of this length is refused."""
    assert load(hash_key=key).hash_key is not None


def test_a_key_is_the_same_wherever_it_stands():
    """Argument, variable, file of the key and bizlog.toml give the same pseudonyms."""
    Path("key").write_bytes(b"  " + KEY.encode() + b"\n")
    by_argument = [load(hash_key=KEY), load(hash_key=KEY.encode())]
    by_variable = [
        load({"BIZLOG_HASH_KEY": KEY}),
        load({"BIZLOG_HASH_KEY_FILE": "key"}),
    ]
    write_file(f'hash_key = "{KEY}"\n')

    found = [*by_argument, *by_variable, load()]

    assert len({each.hash_key.pseudonym("jane") for each in found}) == 1
    other = load(hash_key="o" * 32).hash_key
    assert other.pseudonym("jane") != found[0].hash_key.pseudonym("jane")


def test_keys_by_id_are_the_same_wherever_they_stand():
    """A table of keys may be an argument, a JSON object, or part of bizlog.toml."""
    table = {"old": "o" * 16, "new": "n" * 16}
    text = json.dumps(table)
    Path("keys").write_text(text)
    found = [
        load(hash_key=table),
        load({"BIZLOG_HASH_KEY": text}),
        load({"BIZLOG_HASH_KEY_FILE": "keys"}),
    ]
    write_file(f'[hash_key]\nold = "{table["old"]}"\nnew = "{table["new"]}"\n')
    found.append(load())

    written = [each.hash_key.pseudonyms("jane") for each in found]
    assert all(each == written[0] for each in written)
    assert list(written[0]) == ["old", "new"]
    assert found[0].hash_key.pseudonym("jane") == written[0]["new"]


BAD_KEYS = [
    ("hunter2", "str of 7 bytes"),
    (b"hunter2", "bytes of 7 bytes"),
    ("", "str of 0 bytes"),
    (5, "int"),
    ([KEY], "list"),
    ({}, "an empty table"),
    ({"hunter2": "hunter2"}, "str of 7 bytes"),
    ({"not an id hunter2": KEY}, "an id that is not of"),
    ({5: KEY}, "an id that is not of"),
    ({"a": 5}, "int"),
]


@pytest.mark.parametrize(("key", "shown"), BAD_KEYS)
def test_a_bad_key_is_a_fault_that_does_not_repeat_it(key, shown):
    """Only types and lengths are told: the list of faults goes into logs."""
    (problem,) = problems(hash_key=key)

    expected = module._EXPECTED["hash_key"]
    assert problem.startswith(f"hash_key (argument): expected {expected}, got {shown}")
    assert "hunter2" not in problem
    assert KEY not in problem


@pytest.mark.parametrize("text", ["hunter2", '{"a": hunter2', '{"a": ["hunter2"]}'])
def test_a_bad_key_of_the_environment_is_not_repeated_either(text):
    """The variable is named, its value is not."""
    (problem,) = problems({"BIZLOG_HASH_KEY": text})

    assert problem.startswith("hash_key (BIZLOG_HASH_KEY): expected ")
    assert "hunter2" not in problem


def test_a_key_file_that_cannot_be_read_is_a_fault():
    """Without its key a service would write pseudonyms that nobody can join."""
    (problem,) = problems({"BIZLOG_HASH_KEY_FILE": "nowhere"})

    assert problem.startswith("hash_key (BIZLOG_HASH_KEY_FILE): expected ")
    assert "a file that cannot be read: No such file or directory" in problem


def test_a_key_has_one_place_in_the_environment():
    """With the key and its file both set, neither is silently preferred."""
    Path("key").write_text(KEY)
    (problem,) = problems({"BIZLOG_HASH_KEY": KEY, "BIZLOG_HASH_KEY_FILE": "key"})

    assert "BIZLOG_HASH_KEY and BIZLOG_HASH_KEY_FILE are both set" in problem
    assert KEY not in problem


def test_settings_that_are_printed_show_no_key():
    """A client's settings may be logged."""
    for key in (KEY, {"a": KEY}):
        assert KEY not in repr(load(hash_key=key))


def test_a_registry_is_taken_as_it_is():
    """Catalogues are objects, not names of objects."""
    mine = Registry()

    assert load(registry=mine).registry is mine


def test_the_registry_of_the_metrics_is_prometheuss_own():
    """The object is taken as it is; unless given there is none."""
    mine = prometheus_client.CollectorRegistry()

    assert load(metrics_registry=mine).metrics_registry is mine
    assert load().metrics_registry is None


def test_without_prometheus_nothing_is_its_registry(monkeypatch):
    """Who has such an object has imported its module; we do not need to."""
    monkeypatch.delitem(sys.modules, "prometheus_client")

    (problem,) = problems(metrics_registry=object())

    assert "a prometheus_client.CollectorRegistry" in problem
    assert "prometheus_client" not in sys.modules


def test_settings_can_be_read_back():
    """What was set is shown by name, for whoever looks at a client."""
    shown = msgspec.structs.asdict(load(batch_size=7, source="shop"))

    assert (shown["batch_size"], shown["source"]) == (7, "shop")
