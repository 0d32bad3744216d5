"""How much of an archive is believed: the bounds that keep a hostile one from costing more than a refusal.

A size that an archive claims never allocates anything; memory is only ever taken for bytes that were read.
"""

from __future__ import annotations

from typing import Final

MEMBERS_MAX: Final = 100_000
"""Real image archives hold a few thousand at the most; this many cost some 30 MB while they are indexed."""

PATH_MAX_BYTES: Final = 4096
"""PATH_MAX of Linux: a longer name cannot be the name of a file."""

NAMES_MAX_BYTES: Final = 16 << 20
"""What the names of all members, and the names that links lead to, may take in memory."""

EXTENSIONS_MAX_BYTES: Final = 32 << 20
"""All PAX headers, long names, sparse maps and labels of one archive."""

RECORDS_MAX: Final = 1_000_000
"""PAX records of one archive; a member has two or three."""

HEADER_EXTENSION_MAX_BYTES: Final = 1 << 20
"""One PAX header or GNU long name; the standard library's writer needs a few hundred bytes."""

KEPT_MEMBER_MAX_BYTES: Final = 4 << 20
"""A manifest or a config: what registries accept as a manifest."""

KEPT_INDEX_MAX_BYTES: Final = 8 << 20
"""`manifest.json` and `index.json` may speak of many images."""

KEPT_TOTAL_MAX_BYTES: Final = 16 << 20
"""All that is kept of one archive, but that `manifest.json` and `index.json` may come on top of it."""

PEEKED_TOTAL_MAX_BYTES: Final = 32 << 20
"""What is read of one archive in search of signatures."""

PARSED_DESCRIPTORS_MAX: Final = 50_000
"""What is kept of the manifests that have been read: some 300 bytes each."""

IMAGES_MAX: Final = 10_000
"""What one `manifest.json` may list."""

LISTED_MAX: Final = 50_000
"""Layers, and names, of all images that one `manifest.json` lists; shared ones count each time."""

LINK_HOPS_MAX: Final = 40
"""What Linux follows before it says ELOOP."""

WINDOW_MAX_BYTES: Final = 64 << 20
"""What a zstd window or an xz dictionary may take: all that `xz -9` and `zstd -19` need."""

WINDOW_USUAL_BYTES: Final = 8 << 20
"""The window of `xz -6` and `zstd -19`. Archives with a larger one take turns: four at once would be 256 MiB."""

ZERO_TAIL_MAX_BYTES: Final = 64 << 20
"""How far behind the end of a tar another one, concatenated to it, is looked for."""

TAIL_MAX_BYTES: Final = 256 << 20
"""How much may follow the end of a compressed tar, which is read to check the checksums; tar pads to 10 KiB."""

IDLE_MAX_BYTES: Final = 64 << 20
"""How much compressed data may hold nothing: frames to be skipped, zeros between members."""

MEMBERS_COUNTED: Final = 10_000
MEMBER_MEAN_MIN_BYTES: Final = 128
"""What so many members of a gzip file (frames of a zstd file) in a row must hold on average.

eStargz makes one for each file, with its tar header of 512 bytes.
"""
