"""Where a service keeps its things, by the same settings as the service itself."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import NamedTuple

from bizlog.cli.errors import CommandError
from bizlog.settings import CONFIG_FILE


class Place(NamedTuple):
    """
    A folder that a setting names.

    Attributes:
        setting: The setting.
        default: The folder where it is not set; None where there is no default.
    """

    setting: str
    default: str | None


DEAD_LETTERS = Place("dead_letters", "./bizlog-dead-letters")
JOURNAL = Place("journal", None)


def configured_folder(place: Place) -> Path:
    """
    Find a folder: the environment, then `bizlog.toml`, then the default.

    Only this one setting is read, so that the others need not be in order.

    Raises:
        CommandError: It is not set and has no default, or the file cannot be read.
    """
    variable = f"BIZLOG_{place.setting.upper()}"
    found = os.environ.get(variable, "").strip() or _in_file(place.setting)
    if found := found or place.default:
        return Path(found)
    raise CommandError(
        f"which folder? name it, or set {variable} or {place.setting} in {CONFIG_FILE}"
    )


def _in_file(setting: str) -> str | None:
    try:
        table = tomllib.loads(Path(CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CommandError(f"{CONFIG_FILE}: cannot be read as TOML: {error}") from None
    found = table.get(setting)
    return found if isinstance(found, str) else None
