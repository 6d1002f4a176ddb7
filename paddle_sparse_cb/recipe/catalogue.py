"""The recipes that come with this package, by name. Imports nothing that `paddle-sparse list` does not need."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]
# In an installed package the recipes are inside of it, in a checkout beside it.
FOLDER = next((folder for folder in (_PACKAGE / "recipes", _PACKAGE.parent / "recipes") if folder.is_dir()), _PACKAGE)


def list_recipes() -> dict[str, str]:
    """Returns the description of each recipe by its name: the comment in the first line of its file."""
    return {path.stem: _describe(path) for path in sorted(FOLDER.glob("[!.]*.yml"))}


def _describe(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def command_name(path: Path) -> str:
    """Returns how to name a recipe on the command line: by its name if it comes with this package, else by its path."""
    return path.stem if path.resolve().parent == FOLDER else str(path)


def find_recipe(name: str) -> Path:
    """Returns the file of a recipe: a path, or the name of a recipe that comes with this package.

    An existing file takes precedence over a name.

    Args:
        name: what the user gave.

    Raises:
        InputError: a name without a suffix that is neither a file nor a known recipe.
    """
    path = Path(name)
    if path.is_file() or path.suffix in (".yml", ".yaml") or len(path.parts) != 1:
        return path
    packaged = FOLDER / f"{name}.yml"
    if not packaged.is_file():
        raise InputError(f"{name}: no such recipe; {did_you_mean(name, list_recipes())} (paddle-sparse list)")
    return packaged
