"""How fast chunks are served, as a multiple of nginx with the same bytes, measured in alternating rounds.

Both run 2 workers on this machine and are driven by wrk, one after the other, with requests for random chunks that
are in the page cache. The figure is the median of the ratios of the rounds: a rate alone says more about the machine.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.peers import (
    WRK_DONE,
    alternated,
    described,
    drive,
    free_port,
    get,
    nginx_command,
    our_command,
    serving,
)
from precomputed_server.format.grid import cell_box, cells
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import chunk_name
from precomputed_server.format.tiff import DEFLATE, chunk_header

CHUNK = (64, 64, 64)
CHUNKS_PER_AXIS = (6, 6, 6)
WORKERS = 2
ACCEPTED = "gzip, deflate"
"""What a browser accepts on plain HTTP."""

WRK_SCRIPT = """
local paths = {}
for path in io.lines("PATHS") do paths[#paths + 1] = path end
math.randomseed(os.time())
request = function() return wrk.format("GET", paths[math.random(#paths)]) end
"""


@dataclass(frozen=True)
class Workload:
    """One pair of directories that answer the same paths; `paths` are URL paths."""

    name: str
    ours: Path
    nginx: Path
    paths: list[str]
    headers: dict[str, str]


def make_workloads(directory: Path) -> list[Workload]:
    """Write both datasets: chunks as they are, and deflate TIFF chunks beside gzip files of the same streams."""
    ours, nginx = directory / "ours", directory / "nginx"
    size = tuple(edge * count for edge, count in zip(CHUNK, CHUNKS_PER_AXIS, strict=True))
    scale = ScaleInfo("1_1_1", (size[0], size[1], size[2]), (1800.0, 1800.0, 2000.0), (CHUNK,))
    info = VolumeInfo("uint16", 1, (scale,)).to_bytes()
    names = [chunk_name(cell_box(scale, cell)) for cell in cells(scale)]
    for folder in (ours / "plain", ours / "deflate", nginx / "deflate"):
        (folder / scale.key).mkdir(parents=True)
        (folder / "info").write_bytes(info)
    (nginx / "plain").symlink_to(ours / "plain")
    generator = np.random.default_rng(0)
    for name in names:
        body = generator.normal(400, 20, CHUNK).astype("<u2").tobytes()
        (ours / "plain" / scale.key / name).write_bytes(body)
        stream = zlib.compress(body, 1)
        header = chunk_header((CHUNK[2], CHUNK[1], CHUNK[0]), np.dtype("<u2"), len(stream), DEFLATE)
        (ours / "deflate" / scale.key / f"{name}.tiff").write_bytes(header + stream)
        (nginx / "deflate" / scale.key / f"{name}.gz").write_bytes(as_gzip(stream, body))
    return [
        Workload(
            f"{kind} chunks",
            ours,
            nginx,
            [f"/{kind}/{scale.key}/{name}" for name in names],
            {"Accept-Encoding": accepted},
        )
        for kind, accepted in (("plain", "identity"), ("deflate", ACCEPTED))
    ]


def as_gzip(stream: bytes, body: bytes) -> bytes:
    """Put the deflate data of a zlib stream into a gzip file (RFC 1950, RFC 1952)."""
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return header + stream[2:-4] + struct.pack("<II", zlib.crc32(body), len(body))


def measure(workload: Workload, urls: tuple[str, str], work: Path, arguments: argparse.Namespace) -> None:
    """Drive both servers (`urls`: ours, nginx) in turn and print one line."""
    for path in workload.paths:  # fills the page cache, and shows that both answer the same
        if get(urls[0] + path, workload.headers) != get(urls[1] + path, workload.headers):
            sys.exit(f"the two servers answer {path} differently.")
    paths, script = work / "paths", work / "wrk.lua"
    paths.write_text("\n".join(workload.paths) + "\n")
    script.write_text(WRK_SCRIPT.replace("PATHS", str(paths)) + WRK_DONE)
    ours, nginx = (partial(drive, script, url, workload.headers, arguments.seconds, "-t1") for url in urls)
    rounds = alternated(arguments.rounds, ours, nginx)
    print(f"serve {workload.name:14}: {described(rounds, 'nginx')}", flush=True)


def main() -> None:
    """Print one line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each side of a round (default: 3)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serve-") as name:
        work = Path(name)
        workloads = make_workloads(work)
        ports = free_port(), free_port()
        urls = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        ours = our_command(workloads[0].ours, ports[0], WORKERS)
        theirs = nginx_command(workloads[0].nginx, ports[1], work / "prefix", WORKERS)
        with (
            serving(ours, f"{urls[0]}/healthz", work / "ours.log"),
            serving(theirs, f"{urls[1]}/plain/info", work / "nginx.log"),
        ):
            for workload in workloads:
                measure(workload, urls, work, arguments)


if __name__ == "__main__":
    main()
