"""What holds for the files of the repository, whatever is in them."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import bizlog

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
# Written so that this file does not hold what it looks for.
REGISTRY_HOST = re.compile(
    r"\b(pypi\.org|pythonhosted\.org|npmjs\.(org|com)|deb\.debian\.org|crates\.io)"
)
MACHINE_PATH = re.compile(r"(?<![\w.}$)])/(work|root(?!/of/)|home/(?!user\b)\w+)/")
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?(?:>=([\w.]+))?")


# Extras that no sink needs: their sum, a server for developing, and our own tools.
NO_SINKS = {"all", "loopback", "servers", "test", "dev"}


def tracked_files():
    """List the text files that git tracks, with their contents."""
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a clone: git knows nothing of these files")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            yield name, path.read_text(encoding="utf-8", errors="replace")


def calls_of(name):
    """Find the calls of a class in the two packages."""
    for folder in ("bizlog", "handlers"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                called = getattr(node, "func", None)
                if getattr(called, "id", getattr(called, "attr", "")) == name:
                    yield path.name, node


def pinned(name):
    """Read a constraints file: versions by name, in the spelling of pyproject.toml."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {package.lower().replace("_", "-"): version for package, version in pins}


def lower_bounds(requirements):
    """Read the lowest versions that requirements allow, by name."""
    found = (REQUIREMENT.match(requirement) for requirement in requirements)
    return {match[1].lower(): match[2] for match in found if match[1] != "bizlog"}


@pytest.mark.parametrize("pattern", [REGISTRY_HOST, MACHINE_PATH])
def test_files_hold_nothing_of_a_machine(pattern):
    """No package registry's host and no path of somebody's machine is written down."""
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked_files()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]

    assert not found


def test_every_test_states_its_rule():
    """Each test function has a docstring: the rule it holds us to."""
    missing = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert not missing


def test_tests_are_no_packages():
    """No `__init__.py` in tests: pytest imports by path, and nothing shadows them."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_missing_extras_can_be_installed():
    """The extra that MissingExtraError tells people to install exists."""
    named = {
        (module, ast.literal_eval(argument))
        for module, call in calls_of("MissingExtraError")
        for argument in [
            *call.args[1:2],
            *(keyword.value for keyword in call.keywords if keyword.arg == "extra"),
        ]
    }

    assert named
    assert {extra for _, extra in named} <= set(PROJECT["optional-dependencies"])


def test_all_installs_every_extra():
    """`bizlog[all]` brings what each sink needs, and no tool of ours."""
    extras = set(PROJECT["optional-dependencies"]) - NO_SINKS
    [everything] = PROJECT["optional-dependencies"]["all"]

    assert (
        set(everything.removeprefix("bizlog[").removesuffix("]").split(",")) == extras
    )


def test_changelog_tells_of_this_version():
    """The version is one, and the changelog has a chapter on it."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert PROJECT["version"] == bizlog.__version__
    assert re.search(
        rf"^## \[?{re.escape(bizlog.__version__)}\b", changelog, re.MULTILINE
    )


def test_lowest_versions_are_the_promised_ones():
    """`make test-lowest` installs exactly the lower bounds of pyproject.toml."""
    extras = PROJECT["optional-dependencies"]
    optional = [
        each
        for name in set(extras) - {"all", "servers", "test", "dev"}
        for each in extras[name]
    ]

    assert pinned("constraints-lowest.txt") == lower_bounds(
        [*PROJECT["dependencies"], *optional]
    )


def test_tools_are_pinned_and_dependencies_are_not():
    """CI takes the tools that were tried, and the newest of what users get."""
    extras = PROJECT["optional-dependencies"]
    tools = lower_bounds([*extras["test"], *extras["servers"], *extras["dev"]])
    pins = pinned("constraints-dev.txt")

    assert set(tools) <= set(pins)
    assert not set(pins) & set(lower_bounds(PROJECT["dependencies"]))
