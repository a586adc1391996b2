"""How many entries of real registrations are placed, and how many are another experiment's.

``PYTHONPATH=tests python tests/real_registrations.py DATA`` prints a table; DATA is the folder of
recorded data. Which experiment a section is of is told by the folder of its picture, where that is
a number, and else by its section number modulo 8: an animal's experiments interleave. The images
are stand-ins of their sizes.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path

import atldld
from atldld.testing import AllenServer, phantom_dataset

SCALE = 10 / 1.049
"""Full-resolution pixels of a pixel of a picture of 10 microns."""

HEADINGS = ("file", "entries", "with an anchoring", "with markers", "experiments", "placed of each",
            "passed over of each")  # fmt: skip


def entries(path):
    """Return image id or None, section number, size, whether anchored, with markers, experiment."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for each in content.get("slices", content.get("sections")):
        name = each["filename"].rpartition("/")[2]
        image = re.match(r"\d+", name)
        yield (
            None if image is None else int(image[0]),
            int(re.search(r"_s(\d+)", name)[1]),
            (each["width"], each["height"]),
            bool(each.get("anchoring", each.get("ouv"))),
            bool(each.get("markers")),
            each["filename"].partition("/")[0],
        )


def dataset_of(number, sections):
    """Return the row of a dataset whose images have the ids, numbers and sizes of some entries."""
    phantom = phantom_dataset(dataset_id=number, plane="coronal", sections=2, resolution=60)
    row = json.loads(json.dumps(phantom.row))
    first = row["section_images"][0]
    row["section_images"] = [
        {
            **first,
            "id": image or 5000 + place,
            "section_number": section,
            "width": round(width * SCALE),
            "height": round(height * SCALE),
        }
        for place, (image, section, (width, height), *_) in enumerate(sections)
    ]
    return row


def row_of(path):
    """Return a row of the table: what becomes of a file's entries, experiment by experiment."""
    found = list(entries(path))
    named = found[0][0] is not None
    experiments = {}
    for each in found:
        own = int(each[-1]) if each[-1].isdigit() else each[1] % 8 if named else 0
        experiments.setdefault(own, []).append(each)
    placed, passed = [], []
    for number, (_, sections) in enumerate(sorted(experiments.items())):
        row = dataset_of(900 + number, sections)
        with AllenServer([row]) as server, warnings.catch_warnings():
            # Stand-ins are not where the animal's sections were.
            warnings.filterwarnings("ignore", ".*as a mirror would", atldld.AtldldWarning)
            opened = atldld.open_dataarray(row["id"], registration=path, source=server.url)
        placed.append(opened.sizes["section"])
        passed.append(len(found) - placed[-1])
    return (
        path.name,
        len(found),
        sum(each[3] for each in found),
        sum(each[4] for each in found),
        len(experiments),
        placed,
        passed,
    )


def table(folder):
    """Return the rows of all files of a folder of registrations."""
    paths = [path for path in sorted(Path(folder).iterdir()) if path.suffix in (".json", ".waln")]
    return [row_of(path) for path in paths]


def main(data):
    """Print the table."""
    print(f"| {' | '.join(HEADINGS)} |\n| {' | '.join(['---'] * len(HEADINGS))} |")
    for row in table(Path(data) / "registrations"):
        cells = [", ".join(map(str, each)) if isinstance(each, list) else each for each in row]
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main(sys.argv[1])
