"""The public face is what `bizlog.__all__` says, and all of it is explained."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import pytest

import bizlog
import bizlog_handlers
from bizlog import exceptions, handler, settings
from bizlog.delivery import receipts
from bizlog.integrations import serverless

LOADED_LATE = {
    "BusinessEventHandler": handler,
    "Outcome": receipts,
    "Receipt": receipts,
    "Settings": settings,
    "divert": handler,
    "flush_after": serverless,
    "logging_config": handler,
}
TREE_LINE = re.compile(r"^( *)[*x+] (\w+)", re.MULTILINE)


def public_modules():
    """Find the modules whose names and parents' names have no underscore."""
    for package in (bizlog, bizlog_handlers):
        prefix = f"{package.__name__}."
        for found in pkgutil.walk_packages(package.__path__, prefix):
            if not any(part.startswith("_") for part in found.name.split(".")):
                yield found.name


def public_members(owner):
    """List the public classes and functions that a module or class itself defines."""
    for name, value in vars(owner).items():
        function = inspect.unwrap(getattr(value, "__func__", value))
        if name.startswith("_") or not (
            inspect.isclass(function)
            or inspect.isroutine(function)
            or isinstance(value, property)
        ):
            continue
        if inspect.isclass(owner) or value.__module__ == owner.__name__:
            yield name, value


def test_all_is_what_is_imported():
    """`__all__` lists every public name of the package, and each name once."""
    members = {
        name
        for name, value in vars(bizlog).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", "") != "typing"
    } - {"TYPE_CHECKING"}

    assert sorted(bizlog.__all__) == sorted(members | LOADED_LATE.keys())


def test_late_names_are_those_of_their_module():
    """What is loaded at first use is the same object, and nothing else is found."""
    for name, module in LOADED_LATE.items():
        assert getattr(bizlog, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bizlog.no_such_name


@pytest.mark.parametrize("name", bizlog.__all__)
def test_public_names_say_what_they_are(name):
    """Each public name has a docstring, its own or its class's."""
    assert inspect.getdoc(getattr(bizlog, name))


@pytest.mark.parametrize("module_name", list(public_modules()))
def test_public_members_have_docstrings(module_name):
    """Each public class, function and method of each public module is documented."""
    module = importlib.import_module(module_name)
    missing = [] if module.__doc__ else [module_name]
    for name, value in public_members(module):
        members = public_members(value) if inspect.isclass(value) else ()
        missing += [name] if not value.__doc__ else []
        missing += [
            f"{name}.{inner}"
            for inner, method in members
            if not inspect.getdoc(getattr(value, inner) or method)
        ]

    assert not missing


def test_errors_are_as_drawn():
    """The tree on top of bizlog.exceptions has every error under its parent."""
    drawn = {}
    branch = []
    for indent, name in TREE_LINE.findall(exceptions.__doc__):
        del branch[len(indent) // 2 :]
        drawn[name] = branch[-1] if branch else "Exception"
        branch.append(name)
    defined = {
        name: error.__bases__[0].__name__
        for name, error in vars(exceptions).items()
        if inspect.isclass(error) and issubclass(error, BaseException)
    }

    assert drawn == defined


def test_every_error_is_public_and_a_bizlog_error():
    """`except bizlog.BizlogError` catches whatever bizlog raises."""
    errors = [error for _, error in public_members(exceptions)]

    assert all(issubclass(error, bizlog.BizlogError) for error in errors)
    assert {error.__name__ for error in errors} <= set(bizlog.__all__)
