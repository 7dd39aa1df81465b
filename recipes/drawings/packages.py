"""Icon packages of npm: fetched, and read without trusting them."""

import json
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advbn_hf.errors import InputError, first_line, one_line

MOST_BYTES = 2**28  # of an unpacked package; the largest has 100 MB
_MOST_ALIASES = 5  # one alias may name the next
_MOST_OBLONG = 10  # times as wide as high, or as high as wide
_PARTS = ("package", "icons", "info", "metadata")  # the JSON files that are read
_CREDITS = ("author", "license")


@dataclass(frozen=True)
class Designer:
    """Whose drawings a package holds.

    Args:
        title: for people.
        package: on npm.
        version: that the sets were tried with, and that `npm pack` fetches.
    """

    title: str
    package: str
    version: str


DESIGNERS = {
    "noto": Designer("Noto", "@iconify-json/noto", "1.2.9"),
    "twemoji": Designer("Twemoji", "@iconify-json/twemoji", "1.2.5"),
    "openmoji": Designer("OpenMoji", "@iconify-json/openmoji", "1.2.29"),
    "fluent_flat": Designer("Fluent flat", "@iconify-json/fluent-emoji-flat", "1.2.6"),
    "fluent": Designer("Fluent", "@iconify-json/fluent-emoji", "1.2.7"),
}


@dataclass(frozen=True)
class Icon:
    """A drawing as its package holds it.

    Args:
        body: SVG elements.
        box: left, top, width and height of what is seen of them.
        flipped: mirrored from left to right, and upside down.
        turns: quarter turns to the right, after that.
    """

    body: str
    box: tuple[float, float, float, float]
    flipped: tuple[bool, bool] = (False, False)
    turns: int = 0


@dataclass(frozen=True)
class IconSet:
    """What one designer drew.

    Args:
        source: the archive, for messages.
        version: of the package.
        info: author and license, each with the keys "name" or "title" and "url".
        categories: names of icons by category; empty where the package has none.
        content: the package's icons.json.
    """

    source: Path
    version: str
    info: Mapping[str, Mapping[str, str]]
    categories: Mapping[str, list[str]]
    content: Mapping[str, Any]

    @property
    def names(self) -> set[str]:
        """Names of all icons, aliases included."""
        return set(self.content["icons"]) | set(self.content.get("aliases", {}))

    def icon(self, name: str) -> Icon:
        """Looks an icon up.

        Raises:
            InputError: there is none of this name, or it is not as Iconify describes icons.
        """
        icons, aliases = self.content["icons"], self.content.get("aliases", {})
        entries: list[Mapping[str, Any]] = []
        target = name
        while target in aliases and len(entries) < _MOST_ALIASES:
            entries.insert(0, aliases[target])
            target = str(aliases[target].get("parent"))
        if target not in icons:
            raise InputError(f"{self.source}: has no icon {name}")
        entries.insert(0, icons[target])
        values = {key: value for entry in (self.content, *entries) for key, value in entry.items()}
        sides = {"left": 0, "top": 0, "width": 16, "height": 16}
        box = tuple(values.get(side, default) for side, default in sides.items())
        rotations = [entry.get("rotate", 0) for entry in entries]
        if not isinstance(values.get("body"), str) or not all(isinstance(n, int | float) for n in (*box, *rotations)):
            raise InputError(f"{self.source}: the icon {name} has no body or no size")
        if min(box[2:]) <= 0 or max(box[2:]) > _MOST_OBLONG * min(box[2:]):
            raise InputError(f"{self.source}: the icon {name} has the size {box[2]} x {box[3]}")
        flipped = tuple(sum(bool(entry.get(key)) for entry in entries) % 2 == 1 for key in ("hFlip", "vFlip"))
        return Icon(values["body"], box, flipped, int(sum(rotations)) % 4)


def find_archives(folder: Path) -> dict[str, Path]:
    """The designers' archives in a folder, as `npm pack` names them.

    Raises:
        InputError: one is missing, or is there in several versions.
    """
    found, missing = {}, []
    for name, designer in DESIGNERS.items():
        stem = designer.package.removeprefix("@").replace("/", "-")
        archives = sorted(folder.glob(f"{stem}-[0-9]*.tgz"))
        if len(archives) > 1:
            raise InputError(f"packages: {folder} has several versions of {designer.package}; leave one there")
        if archives:
            found[name] = archives[0]
        else:
            missing.append(f"{designer.package}@{designer.version}")
    if missing:
        raise InputError(f"packages: {folder} lacks archives; run there: npm pack {' '.join(missing)}")
    return found


def pack_archives(folder: Path) -> dict[str, Path]:
    """Has npm fetch the designers' archives into a folder; nothing of a package is run.

    Raises:
        InputError: npm is not there, or fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            "npm is not installed; install Node.js, or name a folder of `npm pack` archives by --packages"
        )
    wanted = [f"{designer.package}@{designer.version}" for designer in DESIGNERS.values()]
    options = ["--loglevel", "error", "--ignore-scripts", "--fetch-retries", "1", "--pack-destination", str(folder)]
    done = subprocess.run([npm, "pack", *options, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = one_line(" ".join(done.stderr.splitlines()[:3])) or f"exit code {done.returncode}"
        raise InputError(f"npm cannot fetch the packages ({reason}); name a folder of their archives by --packages")
    return find_archives(folder)


def read_package(archive: Path) -> IconSet:
    """Reads the icons of an archive, in memory.

    Raises:
        InputError: it is no such package, holds links or paths out of it, or is too large.
    """
    members = _read_members(archive, {f"package/{part}.json" for part in _PARTS})
    parts = {part: _read_json(archive, part, members) for part in _PARTS}
    package, icons, info, metadata = parts.values()
    _check(archive, "package", isinstance(package, dict) and isinstance(package.get("version"), str))
    _check(archive, "icons", _holds_mappings(icons, "icons"))
    _check(archive, "icons", "aliases" not in icons or _holds_mappings(icons, "aliases"))
    _check(archive, "info", isinstance(info, dict) and all(isinstance(info.get(key), dict) for key in _CREDITS))
    categories = metadata.get("categories", {}) if isinstance(metadata, dict) else None
    _check(archive, "metadata", isinstance(categories, dict))
    _check(archive, "metadata", all(isinstance(names, list) for names in categories.values()))
    return IconSet(archive, package["version"], {key: info[key] for key in _CREDITS}, categories, icons)


def _read_json(archive: Path, part: str, members: dict[str, bytes]) -> Any:
    try:
        return json.loads(members.pop(f"package/{part}.json"))
    except KeyError as error:
        raise InputError(f"{archive}: has no package/{part}.json, so it is no package of icons") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{archive}: package/{part}.json is not valid JSON ({first_line(error)})") from error


def _check(archive: Path, part: str, fits: bool) -> None:
    if not fits:
        raise InputError(f"{archive}: package/{part}.json is in another layout than that of @iconify-json packages")


def _holds_mappings(content: object, key: str) -> bool:
    inner = content.get(key) if isinstance(content, dict) else None
    return isinstance(inner, dict) and all(isinstance(entry, dict) for entry in inner.values())


def _read_members(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    total, found = 0, {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                outside = member.name.startswith("/") or ".." in Path(member.name).parts
                if outside or not (member.isfile() or member.isdir()):
                    raise InputError(f"{archive}: {member.name!r} is a link or lies outside the package")
                total += member.size
                if total > MOST_BYTES:
                    raise InputError(f"{archive}: has more than {MOST_BYTES:,} bytes")
                if member.name in wanted:
                    found[member.name] = tar.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{archive}: cannot be read ({first_line(error)}); pack it again") from error
    return found
