"""Installs what would be published on every Python of this machine: ``make release``.

``python tests/package/everywhere.py`` builds the wheel and the source distribution into
``build/package``, and then, for each Python that the classifiers name and that is found here:

- installs the wheel into a clean environment, with nothing but what it asks for;
- imports it with warnings as errors, runs ``atldld --help`` and ``atldld demo``;
- installs the source distribution over it, and imports that;
- resolves every extra.

A Python that is too old must refuse the wheel, and say why. For the newest Python the extra
``test`` is installed, and the tests run from the unpacked source distribution (all are collected;
those of ``QUICK`` run). ``CITATION.cff`` is held against its schema. Needs the package index.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "build" / "package"
QUICK = ("tests/model", "tests/arrays/test_phantom.py", "tests/test_readme.py")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command, and return what it printed; a failure shows it and ends this program."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout[-4000:]}")
    return done.stdout


def pythons() -> dict[tuple[int, int], Path]:
    """Return one interpreter for each version of Python that is found here."""
    places = [*Path.home().glob(".pyenv/versions/*/bin/python3")]
    places += [Path(sys.executable)]
    for folder in ("/usr/bin", "/usr/local/bin", "/opt/python/bin"):
        places += [path for path in Path(folder).glob("python3*") if path.name[6:].isascii()]
    found: dict[tuple[int, int], Path] = {}
    for place in places:
        if re.fullmatch(r"python3?(\.\d+)?", place.name):
            ask = "import sys, venv; print(*sys.version_info[:2])"
            done = subprocess.run([place, "-c", ask], capture_output=True, text=True)
            if done.returncode == 0:
                major, minor = map(int, done.stdout.split())
                found.setdefault((major, minor), place)
    return dict(sorted(found.items()))


def build() -> tuple[Path, Path]:
    """Build in a clean environment, as a publisher does; return wheel and source distribution."""
    shutil.rmtree(TARGET, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(sys.executable), Path(folder))
        run(python, "-m", "pip", "install", "--quiet", "build", "twine", "cffconvert")
        run(python, "-m", "build", "--outdir", TARGET, ROOT)
        run(python, "-m", "twine", "check", "--strict", *TARGET.iterdir())
        run(python.with_name("cffconvert"), "--validate", "-i", ROOT / "CITATION.cff")
    return next(TARGET.glob("*.whl")), next(TARGET.glob("*.tar.gz"))


def environment(python: Path, folder: Path) -> Path:
    """Make an environment with nothing but pip, and return its interpreter."""
    run(python, "-m", "venv", folder)
    made = folder / "bin" / "python"
    run(made, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    return made


def hold(python: Path, wheel: Path, source: Path, extras: list[str]) -> None:
    """Install, import and use the package on one Python."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = environment(python, folder / "environment")
        look = "import atldld, pathlib; [getattr(atldld, name) for name in atldld.__all__]"
        for package in ([wheel], ["--force-reinstall", "--no-deps", source]):
            run(made, "-m", "pip", "install", "--quiet", *package)
            run(made, "-m", "pip", "check")
            run(made, "-W", "error", "-c", look, cwd=folder)
        run(made.with_name("atldld"), "--help", cwd=folder)
        run(made.with_name("atldld"), "demo", "--output", "demo.png", cwd=folder)
        if not (folder / "demo.png").stat().st_size:
            sys.exit("the demo wrote an empty picture")
        for extra in extras:
            run(made, "-m", "pip", "install", "--dry-run", "--quiet", f"{wheel}[{extra}]")


def hold_tests(python: Path, wheel: Path, source: Path) -> str:
    """Run tests from the source distribution against the installed wheel."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
        unpacked = next(folder.glob("atldld-*"))
        made = environment(python, folder / "environment")
        run(made, "-m", "pip", "install", "--quiet", f"{wheel}[test]")
        # The wheel is what is tested, not the sources beside the tests.
        shutil.rmtree(unpacked / "src")
        collected = run(made, "-m", "pytest", "--collect-only", "-q", "tests", cwd=unpacked)
        ran = run(made, "-m", "pytest", "-q", *QUICK, cwd=unpacked)
        return f"{collected.strip().splitlines()[-1]}; {ran.strip().splitlines()[-1]}"


def main() -> None:
    """Do all of it, and say what was done."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {
        tuple(map(int, found[1].split(".")))
        for each in project["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each))
    }
    wheel, source = build()
    print(f"built {wheel.name} and {source.name}")
    found = pythons()
    extras = sorted(project["optional-dependencies"])
    for version, python in found.items():
        label = ".".join(map(str, version))
        began = time.monotonic()
        if version >= (3, 11):
            hold(python, wheel, source, extras)
            said = f"installs, imports, runs; resolves {', '.join(extras)}"
        else:
            said = refused(python, wheel)
        print(f"Python {label} ({python}): {said} ({time.monotonic() - began:.0f} s)", flush=True)
    if missing := named - set(found):
        sys.exit(
            f"not found here: Python {', '.join(f'3.{minor}' for _, minor in sorted(missing))}"
        )
    newest = found[max(named)]
    print(f"tests from the source distribution: {hold_tests(newest, wheel, source)}")


def refused(python: Path, wheel: Path) -> str:
    """Return what an old Python says of the wheel; it must not install it."""
    command = [python, "-m", "pip", "install", "--dry-run", "--no-deps", wheel]
    done = subprocess.run(command, capture_output=True, text=True)
    if "--dry-run" in done.stderr:
        return "too old to ask"
    if done.returncode == 0 or "Python" not in done.stderr:
        sys.exit(f"{python} does not refuse the wheel as it should:\n{done.stdout}{done.stderr}")
    return "refuses the wheel"


if __name__ == "__main__":
    main()
