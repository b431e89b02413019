"""Run the files that ask for more memory than there is, in a process that may take little; prints what it took.

`python bombs.py FOLDER` is started by `test_bombs.py`.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOM = 768 * 2**20
"""Bytes of address space that are left to a process that has loaded everything."""

BOMBS = {
    "weights": ["zip bomb", "zip that says 4 GB", "a terabyte of one number", "header of 2**62 bytes"],
    "runs": ["weights of a petabyte", "input of 16384 x 16384", "padding of 4096", "facts are endless"],
    "pictures": [
        "a million by one",
        "one by a million",
        "60,000 x 60,000 zeros",
        "a WEBP canvas of 1 GB",
        "a TIFF of 2**31 rows",
        "a terabyte",
        "endless",
    ],
    "folders": ["a million by one in each class", "a terabyte in each class", "endless zeros in a class"],
    "parquet": [
        "a footer of 4 GB",
        "zeros without end",
        "50 million rows of nothing",
        "a million rows of nothing",
        "one picture, 100,000 times",
    ],
    "sweeps": [
        "10**12 images",
        "10**8 images",
        "shifts of 16384",
        "shards of 10**12",
        "an array of 10**12 more",
        "coordinates of 10**12",
        "a chunk of 64 GB",
        "labels of 64 GB",
        "a chunk is endless",
        "a chunk is a terabyte",
    ],
    "features": ["maps of 10**12", "maps of 2**31", "a chunk of 64 GB", "a chunk is endless"],
}


def address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def main(folder: Path) -> None:
    sys.path[:0] = [str(TESTS)]
    from hostile import commands, corpus_data, corpus_runs, corpus_weights, corpus_zarr
    from hostile.machinery import Case, run, run_one

    ground = commands.lay_out(folder)
    corpus_runs.WHERE["run"] = ground.run
    corpus_zarr.WHERE |= {"features": ground.features, "inspection": ground.inspection}
    tables = {
        "weights": (corpus_weights.WEIGHTS, commands.WEIGHTS),
        "runs": (corpus_runs.RUNS, commands.RUNS),
        "pictures": (corpus_data.PICTURES, commands.PICTURE),
        "folders": (corpus_data.FOLDERS, commands.DATA),
        "parquet": (corpus_data.PARQUET, commands.DATA),
        "sweeps": (corpus_zarr.SWEEPS, commands.SWEEPS),
        "features": (corpus_zarr.FEATURES, commands.FEATURES),
    }
    # Everything is loaded and every pool of threads is there before the room is counted.
    for line in (*commands.RUNS.values(), commands.DATA["repair"]):
        place = folder / "warm" / str(len(list(folder.glob("warm/*"))))
        place.mkdir(parents=True)
        spec = str(ground.run) if line in commands.RUNS.values() else f"folder:{ground.pictures}"
        run(*line(ground, spec, place))
    for line in commands.SWEEPS.values():
        place = folder / "warm" / str(len(list(folder.glob("warm/*"))))
        place.mkdir(parents=True)
        run(*line(ground, str(ground.sweep), place))
    limit = address_space() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = {}
    for sort, names in BOMBS.items():
        cases, lines = tables[sort]
        for number, name in enumerate(names):
            case: Case = cases[name]
            place = folder / "bombs" / sort / str(number)
            place.mkdir(parents=True)
            try:
                command = list(lines)[number % len(lines)]
                run_one(case, place, command, lines[command], ground)
            except BaseException as error:
                wrong[f"{sort}: {name}"] = f"{type(error).__name__}: {error}"[:2000]
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"wrong": wrong, "taken_kb": taken, "n": sum(map(len, BOMBS.values()))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
