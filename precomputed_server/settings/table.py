"""Every setting of the server in one table.

A setting NAME is the flag `--name`, the environment variable `PRECOMPUTED_NAME`, the key `name` of the file of settings
and the field `Settings.name`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from precomputed_server.settings.setting import Setting

MEBIBYTE = 1 << 20

ROOT = Setting("root", "/data", "The directory that is served.", old_variable="PRECOMPUTED_PATH")
"""No flag but an argument of the commands."""

SETTINGS: tuple[Setting, ...] = (
    Setting("host", "127.0.0.1", "Address to listen on; 0.0.0.0 for every IPv4 address of this machine."),
    Setting("port", 9000, "TCP port to listen on; 0 takes a free one.", minimum=0, maximum=65_535),
    Setting(
        "bind",
        "",
        "Addresses to listen on instead, with commas between them: HOST:PORT, [::]:9000, unix:PATH.",
        computed="host and port",
    ),
    Setting("socket_mode", 0o600, "Permission bits of the sockets of unix:PATH.", minimum=0, maximum=0o777, octal=True),
    Setting("workers", 0, "Serving processes; 0 is the CPUs this process may use, at most 8.", minimum=0, maximum=256),
    Setting("chunk_max_age", 60, "Seconds for which a browser may keep a chunk without asking again.", minimum=0),
    Setting("max_body", 64 * MEBIBYTE, "Largest body of an annotation save, in bytes.", size=True),
    Setting("body_timeout", 120, "Seconds within which the body of a save must have arrived."),
    Setting(
        "open_files",
        65_536,
        "Files and connections that one process may have open, as far as the system lets it.",
        minimum=256,
    ),
    Setting("client_timeout", 15, "Seconds for the head of a request, and for taking 16 KiB of an answer that waits."),
    Setting(
        "body_memory", 256 * MEBIBYTE, "Bytes of save bodies that a worker holds before it answers 503.", size=True
    ),
    Setting(
        "large_body",
        8 * MEBIBYTE,
        "Bodies and files above this many bytes are parsed in a process of their own.",
        size=True,
    ),
    Setting("large_waiting", 4, "How many files of over 1 MiB one worker may have checked at a time, else 503."),
    Setting("large_timeout", 60, "Seconds that reading one large file, or planning an import, may take."),
    Setting(
        "annotation_memory",
        64 * MEBIBYTE,
        "Bytes of annotation files that the writing process keeps parsed.",
        size=True,
    ),
    Setting(
        "view_memory", 128 * MEBIBYTE, "Bytes of annotations that each worker keeps ready for Neuroglancer.", size=True
    ),
    Setting(
        "progress_memory",
        32 * MEBIBYTE,
        "Bytes that each worker keeps of counted annotations and who drew them.",
        size=True,
    ),
    Setting("history_days", 90, "Days for which every version of the annotations can be had back."),
    Setting(
        "kept_saves", 1024 * MEBIBYTE, "Bytes of refused saves that are kept for their authors.", minimum=0, size=True
    ),
    Setting(
        "kept_pictures",
        256 * MEBIBYTE,
        "Bytes of pictures and samples of datasets that are kept.",
        minimum=0,
        size=True,
    ),
    Setting(
        "state",
        "",
        "Directory on a local disk for what pages hold, refused saves and sockets.",
        computed="$XDG_STATE_HOME/precomputed, else ~/.local/state/precomputed",
    ),
    Setting(
        "viewer_url",
        "https://neuroglancer-demo.appspot.com/",
        "The Neuroglancer that links lead to where the `viewer` extra is not installed.",
    ),
    Setting(
        "shared",
        "",
        "Directory for what all servers of the root share, saved viewer states; for a root that is read-only.",
        computed=".precomputed in the root",
    ),
    Setting(
        "saved_states", 256 * MEBIBYTE, "Bytes of viewer states that are kept for short links.", minimum=0, size=True
    ),
    Setting("index_period", 60, "Seconds after which the tree is gone through for datasets that nothing told of."),
    Setting("streams_per_address", 250, "Streams of edits that one address may have open at a worker, else 503."),
    Setting(
        "max_decoded",
        256 * MEBIBYTE,
        "Largest file or chunk, in bytes, that the server inflates for a client.",
        size=True,
    ),
    Setting(
        "chunk_memory",
        512 * MEBIBYTE,
        "Bytes of decoded chunks that all workers together keep; at most half of the memory there is.",
        minimum=0,
        size=True,
    ),
    Setting(
        "header_memory",
        128 * MEBIBYTE,
        "Bytes of headers, indices and checksums of chunks that all workers together keep.",
        minimum=MEBIBYTE,
        size=True,
    ),
    Setting(
        "serve_stacks",
        "",
        "Directories of TIFF planes that are served though nobody described them, such as 'raw/*/planes'.",
        computed="none",
    ),
    Setting(
        "stack_memory",
        256 * MEBIBYTE,
        "Bytes of rows of TIFF planes that all workers together keep.",
        minimum=0,
        size=True,
    ),
    Setting(
        "stack_cache",
        16_384 * MEBIBYTE,
        "Bytes on disk of the coarser levels of served TIFF stacks.",
        minimum=0,
        size=True,
    ),
    Setting("decodes_waiting", 256, "Chunks that one worker may have waiting to be decoded, else 503.", maximum=65_536),
    Setting("decode_threads", 2, "Threads of each worker that inflate chunks.", maximum=256),
    Setting("max_cutout", 1024 * MEBIBYTE, "Largest cut-out, in bytes.", size=True),
    Setting(
        "cutout_memory",
        256 * MEBIBYTE,
        "Bytes of cut-outs that each worker holds while it sends them; all workers at most a quarter of the memory.",
        minimum=MEBIBYTE,
        size=True,
    ),
    Setting("file_threads", 16, "Threads of each worker that read files which are not in the page cache.", maximum=256),
    Setting("write_threads", 8, "Threads of each worker that commit annotation edits.", maximum=256),
    Setting("lock_timeout", 30, "Seconds to wait for another process that holds an annotation block's lock."),
    Setting("umask", 0o002, "Permission bits that new annotations do not get.", minimum=0, maximum=0o777, octal=True),
    Setting("single_host", False, "Take edits where file locks hold on this host only; no other may serve the root."),
    Setting(
        "neurotrale_url",
        "",
        "Where NeuroTrALE is opened from a dataset's page; {source} in it becomes the source, {state} a viewer state.",
        computed="none: the page has the source to paste",
    ),
    Setting("show_paths", False, "Tell on a dataset's page in which directory of this machine it lies."),
    Setting(
        "log_file",
        "",
        "File that the log is appended to.",
        computed="standard error",
        old_variable="PRECOMPUTED_LOGGING",
    ),
    Setting("timeout", 60, "Seconds after which a worker that answers nothing at all is replaced."),
)

TABLE: tuple[Setting, ...] = (ROOT, *SETTINGS)
BY_NAME = {setting.name: setting for setting in TABLE}
BY_KEY = {setting.key: setting for setting in TABLE}


@dataclass(frozen=True)
class Settings:
    """What is in force; `root` is the directory that is served."""

    root: Path
    host: str
    port: int
    bind: str
    socket_mode: int
    workers: int
    chunk_max_age: int
    max_body: int
    body_timeout: int
    open_files: int
    client_timeout: int
    body_memory: int
    large_body: int
    large_waiting: int
    large_timeout: int
    annotation_memory: int
    view_memory: int
    progress_memory: int
    history_days: int
    kept_saves: int
    kept_pictures: int
    state: Path
    viewer_url: str
    shared: Path | None
    saved_states: int
    index_period: int
    streams_per_address: int
    max_decoded: int
    chunk_memory: int
    header_memory: int
    serve_stacks: str
    stack_memory: int
    stack_cache: int
    decodes_waiting: int
    decode_threads: int
    max_cutout: int
    cutout_memory: int
    file_threads: int
    write_threads: int
    lock_timeout: int
    umask: int
    single_host: bool
    neurotrale_url: str
    show_paths: bool
    log_file: Path | None
    timeout: int
