"""Hostile pictures, folders of pictures and parquet files."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hostile.machinery import Case, outside
from hostile.payloads import pickled

Bytes = Callable[[Path], bytes]


def rgb(side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def lawful(seed: int = 0, kind: str = "PNG") -> bytes:
    return encoded(Image.fromarray(rgb(seed=seed)), kind)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(w: int, h: int, data: bytes, *, depth: int = 8, colour: int = 2, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + more + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def long_and_narrow(w: int) -> bytes:
    """A row of black pixels in three kilobytes."""
    return png(w, 1, zlib.compress(bytes(3 * w + 1), 9))


def text_bomb() -> bytes:
    packed = zlib.compress(bytes(64 * 2**20), 9)
    return png(16, 16, zlib.compress(bytes(16 * 49)), more=png_chunk(b"zTXt", b"a\0\0" + packed))


def bmp(w: int, h: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, w, h, 1, 24, 0, 0, 0, 0, 0, 0)


def gif_frames(n: int) -> bytes:
    frames = [Image.fromarray(rgb(16, k)).quantize(8) for k in range(n)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=1)


def webp_canvas() -> bytes:
    """An animation of 16,384 x 16,384 pixels in 40 bytes."""
    canvas = (16383).to_bytes(3, "little") * 2
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff(**tags: int) -> bytes:
    """A TIFF of 16 x 16 grey pixels whose tags may be anything."""
    fields = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 16, 279: 256}
    fields |= {int(name[1:]): value for name, value in tags.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(fields)) + entries + bytes(4)
    return head.ljust(200, b"\0") + bytes(range(256))


def exif(orientation: int) -> bytes:
    facts = Image.Exif()
    facts[0x0112] = orientation
    return encoded(Image.fromarray(rgb()), "JPEG", exif=facts)


def bad_exif() -> bytes:
    return encoded(Image.fromarray(rgb()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")


def mode(name: str, kind: str = "PNG") -> bytes:
    return encoded(Image.fromarray(rgb()).convert(name), kind)


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray(rgb()[:, :, 0].astype(np.uint16) * 257))


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(/etc/passwd) (r) file\n%%EOF\n"

PICTURE_BYTES: dict[str, tuple[Bytes, str, str]] = {
    "cut short": (lambda f: lawful()[:-200], "refused", "cannot be decoded"),
    "a header only": (lambda f: lawful()[:33], "refused", "cut short within its header"),
    "empty": (lambda f: b"", "refused", "is empty"),
    "no picture": (lambda f: b"picture " * 99, "refused", "is no picture"),
    "a pickle": (pickled, "refused", "is no picture"),
    "an SVG": (lambda f: SVG, "refused", "is no picture"),
    "a PostScript program": (lambda f: EPS, "refused", "is no picture"),
    "60,000 x 60,000 zeros": (
        lambda f: png(60_000, 60_000, zlib.compress(bytes(2**20))),
        "refused",
        "too large to decode safely",
    ),
    "a million by one": (lambda f: long_and_narrow(1_000_000), "refused", "long and narrow"),
    "one by a million": (lambda f: png(1, 1_000_000, zlib.compress(bytes(4_000_000), 9)), "refused", "long and narrow"),
    "2**31 - 1 pixels wide": (lambda f: png(2**31 - 1, 2**31 - 1, b""), "refused", "too large to decode safely"),
    "no pixels": (lambda f: png(0, 0, zlib.compress(b"")), "refused", "is no picture"),
    "pixels that end early": (lambda f: png(16, 16, zlib.compress(bytes(10))), "refused", "cannot be decoded"),
    "64 MB of text in a kilobyte": (lambda f: text_bomb(), "refused", "MAX_TEXT_CHUNK"),
    "bits that nobody has": (lambda f: png(16, 16, b"", depth=7), "refused", "is no picture"),
    "a BMP of 2**30 pixels": (lambda f: bmp(2**15, 2**15), "refused", "too large to decode safely"),
    "a BMP of negative size": (lambda f: bmp(-16, -16), "refused", "too large to decode safely"),
    "a WEBP canvas of 1 GB": (lambda f: webp_canvas(), "refused", "too large to decode safely"),
    "a JPEG2000 of noise": (
        lambda f: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(range(256)),
        "refused",
        "cannot be decoded",
    ),
    "a TIFF of 2**31 rows": (lambda f: tiff(_257=2**31 - 1), "refused", "too large to decode safely"),
    "a TIFF that points at itself": (lambda f: tiff(_273=0, _279=2**31), "either", "x.png"),
    "a TIFF of 60,000 samples": (lambda f: tiff(_277=60_000), "refused", "is no picture"),
    "a PPM of a trillion": (lambda f: b"P6 1000000 1000000 255\n", "refused", "too large to decode safely"),
    "a PPM of letters": (lambda f: b"P6 \x1b[2J\xff 16 255\n" + bytes(768), "refused", "cannot be decoded"),
    "floating point": (lambda f: encoded(Image.new("F", (16, 16)), "TIFF"), "refused", "floating-point"),
    "a thousand frames": (lambda f: gif_frames(300), "fine", ""),
    "EXIF, on its side": (lambda f: exif(6), "fine", ""),
    "EXIF, 200": (lambda f: exif(200), "fine", ""),
    "EXIF that leads nowhere": (lambda f: bad_exif(), "fine", ""),
    "16 bits": (lambda f: sixteen_bits(), "fine", ""),
    "CMYK": (lambda f: mode("CMYK", "JPEG"), "fine", ""),
    "a palette": (lambda f: mode("P"), "fine", ""),
    "one bit": (lambda f: mode("1"), "fine", ""),
    "opacity": (lambda f: mode("RGBA"), "fine", ""),
    "a picture and a zip": (lambda f: lawful() + b"PK\x05\x06" + bytes(18), "fine", ""),
    "a picture and a page": (lambda f: lawful() + b"<script>alert(1)</script>", "fine", ""),
    "1 x 1": (lambda f: encoded(Image.new("RGB", (1, 1))), "either", "x.png"),
}
"""Name: bytes, what is expected, and what the line then says."""


def as_file(content: Bytes, name: str = "x.png") -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (folder / name).write_bytes(content(folder))
        return folder / name

    return build


def link(target: str, name: str = "x.png") -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return build


def huge(path: Path, n_bytes: int = 2**40) -> None:
    """A file of a terabyte that takes no room."""
    path.touch()
    os.truncate(path, n_bytes)


def huge_picture(folder: Path) -> Path:
    huge(folder / "x.png")
    return folder / "x.png"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "x.png")
    return folder / "x.png"


PICTURES: dict[str, Case] = {
    name: Case(as_file(content), expected, says) for name, (content, expected, says) in PICTURE_BYTES.items()
} | {
    "a terabyte": Case(huge_picture, says="expected at most 1,073,741,824"),
    "a pipe": Case(pipe, says="is no file"),
    "endless": Case(link("/dev/zero"), says="is no file"),
    "what cannot be read": Case(link("/proc/self/mem"), says="cannot be read"),
    "a link in a circle": Case(link("x.png"), says="is no file"),
    "a folder": Case(lambda f: f, says="is a folder"),
    "a name that steers a terminal": Case(
        as_file(lambda f: b"x", "\x1b[31m[bold]\n\u202ex.png"), says=r"\x1b[31m[bold]\n\u202ex.png"
    ),
    "a name that is no text": Case(as_file(lambda f: b"x", os.fsdecode(b"\xff.png")), says=r"\udcff.png"),
    "a NumPy file of objects": Case(
        as_file(lambda f: b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'shape': (1,)}" + pickled(f)), says="is no picture"
    ),
}


# ---- folders


def folder_of(*extra: tuple[str, Bytes | None], classes: tuple[str, ...] = ("0", "1", "2")) -> Callable[[Path], Path]:
    """A lawful folder with more in it: files, or folders where the content is None."""

    def build(folder: Path) -> Path:
        root = folder / "set"
        for name in classes:
            (root / name).mkdir(parents=True)
            for k in range(2):
                (root / name / f"{k}.png").write_bytes(lawful(k))
        for name, content in extra:
            path = root / name
            if content is None:
                path.mkdir(parents=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content(folder))
        return root

    return build


def and_then(build: Callable[[Path], Path], more: Callable[[Path, Path], object]) -> Callable[[Path], Path]:
    def both(folder: Path) -> Path:
        root = build(folder)
        more(root, folder)
        return root

    return both


def filled(make: Callable[[Path, Path], object], name: str = "{}.png") -> Callable[[Path], Path]:
    """A folder of classes in which every picture is something else."""

    def build(folder: Path) -> Path:
        for k in range(12):
            place = folder / "set" / str(k % 3)
            place.mkdir(parents=True, exist_ok=True)
            make(place / name.format(k), folder)
        return folder / "set"

    return build


def _spec(build: Callable[[Path], Path], kind: str = "folder") -> Callable[[Path], Path]:
    # A spec is text: the commands take what a builder gives as it is.
    return lambda folder: f"{kind}:{build(folder)}"


MARKUP = ("[red]\x1b[31mred[/]", "$\\frac{", "<script>alert(1)<\u202e")

FOLDERS: dict[str, Case] = {
    name: Case(_spec(build), expected, says)
    for name, (build, expected, says) in {
        "an empty folder": (lambda f: f / "set" if (f / "set").mkdir() is None else f, "refused", "no folders"),
        "classes without pictures": (
            lambda f: f / "set" if (f / "set" / "a").mkdir(parents=True) is None else f,
            "refused",
            "no pictures",
        ),
        "nothing there": (lambda f: f / "none", "refused", "does not exist"),
        "pipes in a class": (filled(lambda path, f: os.mkfifo(path)), "refused", "is a pipe"),
        "endless zeros in a class": (filled(lambda path, f: path.symlink_to("/dev/zero")), "refused", "a device"),
        "folders called pictures": (filled(lambda path, f: path.mkdir()), "refused", "no pictures"),
        "links to nothing in a class": (
            filled(lambda path, f: path.symlink_to(outside(f) / "gone")),
            "refused",
            "cannot be read",
        ),
        "a million by one in each class": (
            filled(lambda path, f: path.write_bytes(long_and_narrow(1_000_000))),
            "refused",
            "long and narrow",
        ),
        "a terabyte in each class": (filled(lambda path, f: huge(path)), "refused", "expected at most"),
        "what cannot be read": (filled(lambda path, f: path.symlink_to("/proc/self/mem")), "refused", "cannot be read"),
        "pickles in a class": (filled(lambda path, f: path.write_bytes(pickled(f))), "refused", "is no picture"),
        "pictures with markup": (
            filled(lambda path, f: path.write_bytes(b"x"), "\x1b[2J[red]\n{}.png"),
            "refused",
            r"\x1b[2J[red]",
        ),
        "links in a circle": (and_then(folder_of(), lambda r, f: (r / "0" / "loop").symlink_to(r)), "fine", ""),
        "a class that is a link in a circle": (
            and_then(folder_of(), lambda r, f: (r / "c").symlink_to(r / "c")),
            "fine",
            "",
        ),
        "one class": (folder_of(classes=("0",)), "either", ""),
        "classes with markup": (folder_of(classes=MARKUP), "either", ""),
        "a class that is no text": (folder_of(classes=("0", "1", os.fsdecode(b"\xff\xfe"))), "either", ""),
        "a class of 250 letters": (folder_of(classes=("0", "1", "x" * 250)), "either", ""),
        "a picture that is no text": (
            folder_of((os.fsdecode(b"0/\xff.png"), lambda f: lawful()), classes=("0", "1", "2")),
            "fine",
            "",
        ),
        "train and test with other classes": (
            folder_of(("train/a/0.png", lambda f: lawful()), ("test/b/0.png", lambda f: lawful()), classes=()),
            "either",
            "",
        ),
    }.items()
} | {
    "a folder of no name": Case(lambda f: "folder:", says="expected folder:PATH"),
    "a null character": Case(lambda f: "folder:a\0b", says="does not exist"),
    "a folder of devices": Case(lambda f: "folder:/dev/fd", "either"),
    "a kind with markup": Case(lambda f: "[red]\x1b[2J:x", says="unknown images"),
}


# ---- parquet


def table(
    rows: int = 6,
    *,
    images: list[Any] | None = None,
    labels: list[Any] | None = None,
    label_type: str = "int64",
    features: object = None,
    **options: Any,
) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pictures = [{"bytes": lawful(k), "path": f"{k}.png"} for k in range(rows)] if images is None else images
        struct_of = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        marks = [k % 3 for k in range(rows)] if labels is None else labels
        made = pa.table({"image": pa.array(pictures, struct_of), "label": pa.array(marks, getattr(pa, label_type)())})
        if features is not None:
            text = features if isinstance(features, str) else json.dumps({"info": {"features": features}})
            made = made.replace_schema_metadata({"huggingface": text})
        path = folder / "x.parquet"
        pq.write_table(made, path, **options)
        return path

    return build


def columns(**arrays: Any) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = folder / "x.parquet"
        pq.write_table(pa.table(arrays), path)
        return path

    return build


def mangled(change: Callable[[bytes], bytes], build: Callable[[Path], Path] | None = None) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        path = (build or table())(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return made


def pointing_outside(folder: Path) -> Path:
    """Rows that hold only a path, as sets that are not embedded do: it must not be opened."""
    secret = str(outside(folder) / "secret.txt")
    return table(images=[{"bytes": None, "path": secret}] * 6)(folder)


def _footer_length(whole: bytes, length: int) -> bytes:
    return whole[:-8] + struct.pack("<I", length) + whole[-4:]


def _flip(whole: bytes, share: float) -> bytes:
    changed = bytearray(whole)
    changed[int(len(whole) * share)] ^= 0xFF
    return bytes(changed)


def split_names(folder: Path) -> Path:
    place = folder / "set"
    place.mkdir()
    for name in ("train-0.parquet", "..test-0.parquet", "test-\x1b[2J.parquet"):
        path = table()(folder)
        path.rename(place / name)
    return place


def data_bomb(folder: Path) -> Path:
    """A hundred megabytes of zeros, which take a few kilobytes on disk."""
    return table(images=[{"bytes": bytes(16 * 2**20), "path": ""}] * 6, compression="zstd")(folder)


def nulls(n_rows: int) -> Callable[[Path], Path]:
    """Rows of nothing: half a megabyte for fifty million, written a group at a time."""

    def build(folder: Path) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        group = min(n_rows, 10**6)
        rows = pa.table(
            {"image": pa.nulls(group, kind), "label": np.arange(group) % 2}
        )  # classes, or training stops before
        path = folder / "x.parquet"
        with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
            for _ in range(n_rows // group):
                writer.write_table(rows)
        return path

    return build


def one_picture_often(folder: Path) -> Path:
    """A picture of a megabyte, stored once, in a hundred thousand rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = pa.array([bytes(2**20)], pa.binary())
    often = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), picture)
    path = folder / "x.parquet"
    rows = pa.table({"image": pa.StructArray.from_arrays([often], ["bytes"]), "label": np.arange(100_000) % 2})
    # Without Arrow's own schema a reader knows of plain bytes only.
    pq.write_table(rows, path, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**21)
    return path


def many_labels(folder: Path) -> Path:
    return table(labels=[2**62] * 6)(folder)


PARQUET: dict[str, Case] = {
    name: Case(_spec(build, "parquet"), expected, says)
    for name, (build, expected, says) in {
        "a path instead of bytes": (pointing_outside, "refused", "has no bytes"),
        "paths that climb": (
            table(images=[{"bytes": lawful(k), "path": "../../../etc/passwd"} for k in range(6)]),
            "fine",
            "",
        ),
        "bytes that are null": (table(images=[{"bytes": None, "path": None}] * 6), "refused", "has no bytes"),
        "pictures that are null": (table(images=[None] * 6), "refused", "has no bytes"),
        "bytes that are a pickle": (
            lambda f: table(images=[{"bytes": pickled(f), "path": None}] * 6)(f),
            "refused",
            "is no picture",
        ),
        "labels below 0": (table(labels=[-1] * 6), "refused", "0 or more"),
        "labels that are null": (table(labels=[0, 1, 2, None, 1, 2]), "refused", "has no label"),
        "labels of 2**62": (many_labels, "refused", "classes"),
        "labels of 2**63": (table(labels=[2**63] * 6, label_type="uint64"), "refused", "0 or more"),
        "labels that are fractions": (table(labels=[0.5] * 6, label_type="float64"), "refused", "whole numbers"),
        "labels beyond the names": (
            table(labels=[9] * 6, features={"label": {"names": ["a", "b"]}}),
            "refused",
            "beyond the 2 classes",
        ),
        "labels beyond the model's": (table(labels=[0, 1, 2, 3, 4, 5] * 1), "either", ""),
        "names that are numbers": (table(features={"label": {"names": [1, 2, 3]}}), "either", ""),
        "names with markup": (table(features={"label": {"names": list(MARKUP)}}), "either", ""),
        "names of a megabyte": (table(features={"label": {"names": ["x" * 2**20, "b", "c"]}}), "either", ""),
        "names half a surrogate": (
            table(features='{"info": {"features": {"label": {"names": ["\\ud800", "b", "c"]}}}}'),
            "either",
            "",
        ),
        "a header a hundred thousand deep": (table(features="[" * 100_000), "either", ""),
        "no rows": (table(0), "refused", "holds no pictures"),
        "no columns": (columns(), "refused", "has no column img or image"),
        "pictures that are text": (columns(image=["x"], label=[0]), "refused", "must be a struct"),
        "pictures that are lists": (columns(image=[[1]], label=[0]), "refused", "must be a struct"),
        "columns with markup": (columns(**{"\x1b[2J[red]": [1]}), "refused", r"\x1b[2J[red]"),
        "a footer of 4 GB": (mangled(lambda b: _footer_length(b, 2**32 - 1)), "refused", "cannot be read as parquet"),
        "no footer": (mangled(lambda b: b[:-100]), "refused", "cannot be read as parquet"),
        "a torn footer": (mangled(lambda b: _flip(b, 0.97)), "either", "x.parquet"),
        "a flipped page": (mangled(lambda b: _flip(b, 0.2)), "either", "x.parquet"),
        "text": (mangled(lambda b: b"PAR1" + b"x" * 99 + b"PAR1"), "refused", "cannot be read as parquet"),
        "empty": (mangled(lambda b: b""), "refused", "cannot be read as parquet"),
        "a pickle": (lambda f: as_file(pickled, "x.parquet")(f), "refused", "cannot be read as parquet"),
        "50 million rows of nothing": (nulls(5 * 10**7), "refused", "50,000,000 rows"),
        "a million rows of nothing": (nulls(10**6), "refused", "has no bytes"),
        "one picture, 100,000 times": (one_picture_often, "refused", "repeated very often"),
        "zeros without end": (data_bomb, "refused", "is no picture"),
        "a pipe": (lambda f: (os.mkfifo(f / "x.parquet"), f / "x.parquet")[1], "refused", "does not exist"),
        "endless": (link("/dev/zero", "x.parquet"), "refused", "does not exist"),
        "splits with odd names": (split_names, "either", ""),
        "an empty folder": (lambda f: f, "refused", "no parquet files"),
    }.items()
}
