"""
What users install: the built wheel, apart from the source tree.

The other tests run against the source tree; these build the two archives, unpack the
wheel into a folder of its own and look at it from a process that sees that folder and
the dependencies, but neither the repository nor an editable install.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from email.parser import HeaderParser
from pathlib import Path

import pytest

import bizlog

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
NEVER_LOADED = [
    "aiohttp",
    "azure",
    "bizlog_handlers",
    "deltalake",
    "fastapi",
    "prometheus_client",
    "pyarrow",
    "zstandard",
]

pytestmark = pytest.mark.timeout(300)  # pip and build start several processes


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Build the sdist, and the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder]
    built = subprocess.run(
        [*command, ROOT], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(archives):
    """Open the wheel."""
    [path] = archives.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def run_installed(wheel, tmp_path_factory):
    """Run code that sees the installed wheel and its dependencies, nothing else."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", site, wheel.filename], check=True)
    # -S: site-packages stand on the path, but their .pth files are not read, one of
    # which leads an editable install back to the repository.
    start = f"import sys; sys.path += {[str(site), sysconfig.get_path('purelib')]!r}\n"

    def run(code):
        command = [sys.executable, "-I", "-S", "-c", start + code]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=site
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    found = run("import bizlog, json; print(json.dumps(bizlog.__file__))")
    assert Path(found) == site / "bizlog" / "__init__.py"
    return run


def entry_points(wheel):
    """Read the wheel's entry points by group."""
    parser = ConfigParser()
    parser.read_string(wheel.read(f"{dist_info(wheel)}/entry_points.txt").decode())
    return {group: dict(parser[group]) for group in parser.sections()}


def dist_info(wheel):
    """Name the folder of the wheel's metadata."""
    return f"bizlog-{bizlog.__version__}.dist-info"


def test_wheel_has_two_packages(wheel):
    """Two top-level names, and no generic one such as `handlers` or `tests`."""
    top = {name.partition("/")[0] for name in wheel.namelist()}

    assert top == {"bizlog", "bizlog_handlers", dist_info(wheel)}


def test_wheel_holds_every_module(wheel):
    """What is in the source tree is in the wheel, and nothing else of Python."""
    packages = {"bizlog": ROOT, "bizlog_handlers": ROOT / "handlers"}
    modules = {
        path.relative_to(base).as_posix()
        for package, base in packages.items()
        for path in (base / package).rglob("*.py")
    }

    assert {name for name in wheel.namelist() if name.endswith(".py")} == modules


@pytest.mark.parametrize("package", ["bizlog", "bizlog_handlers"])
def test_packages_are_typed(wheel, package):
    """Both packages carry the mark that lets checkers read their annotations."""
    assert f"{package}/py.typed" in wheel.namelist()


def test_entry_points_are_those_of_pyproject(wheel):
    """The command and all sinks are announced."""
    assert entry_points(wheel) == {
        "console_scripts": PROJECT["scripts"],
        **PROJECT["entry-points"],
    }


def test_metadata_names_version_python_and_extras(wheel):
    """What pip reads agrees with the code and with pyproject.toml."""
    text = wheel.read(f"{dist_info(wheel)}/METADATA").decode()
    metadata = HeaderParser().parsestr(text)

    assert metadata["Version"] == bizlog.__version__
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert set(metadata.get_all("Provides-Extra")) == set(
        PROJECT["optional-dependencies"]
    )


def test_sdist_holds_what_a_packager_needs(archives):
    """From the sdist, the tests and checks can be run as from a clone."""
    [path] = archives.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {
        "CHANGELOG.md",
        "Makefile",
        "README.md",
        "constraints-dev.txt",
        "constraints-lowest.txt",
        "handlers/bizlog_handlers/file.py",
        "pyproject.toml",
        "tests/packaging/test_wheel.py",
    } <= names
    assert not [name for name in names if name.startswith((".venv", ".git/"))]


def test_import_loads_no_destination(run_installed):
    """`import bizlog` loads no handler and no package of an extra."""
    loaded = run_installed(
        "import bizlog, json; print(json.dumps([name.partition('.')[0] for name in "
        "sys.modules]))"
    )

    assert not set(NEVER_LOADED) & set(loaded)


@pytest.mark.parametrize(
    ("url", "name"),
    [("file:./events", "FileSink"), ("console:", "ConsoleSink"), ("null:", "NullSink")],
)
def test_sinks_load_by_entry_point(run_installed, url, name):
    """A sink URL finds its class in the installed wheel."""
    found = run_installed(
        "import json; from bizlog.sinks import make_sink; "
        f"sink = make_sink({url!r}); "
        "print(json.dumps([type(sink).__module__, type(sink).__name__]))"
    )

    assert found == [f"bizlog_handlers.{url.partition(':')[0]}", name]


def test_every_entry_point_loads(run_installed):
    """Nothing is announced that is not there."""
    loaded = run_installed(
        "import json; from importlib.metadata import distribution; "
        "points = distribution('bizlog').entry_points; "
        "print(json.dumps([point.name for point in points if callable(point.load())]))"
    )

    assert set(loaded) == {
        *PROJECT["scripts"],
        *PROJECT["entry-points"]["bizlog.sinks"],
    }
