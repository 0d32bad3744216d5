"""The start of the single file: unpack what fits this Python, once, and run the program that was asked for.

This module becomes the file's `__main__`. It has nothing but the standard library, and is read by whatever `python3`
is, so it is written for Python 3.6.

What is unpacked lies in the user's cache folder, under a name that is the checksum of its wheels. It is written
elsewhere and renamed: of two that start at once one wins, and both run. A cache that somebody else could write to is
not used; then, and where there is no place for one, the files last as long as the process.
"""

import atexit
import importlib
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile

OLDEST, NEWEST = (3, 11), (3, 14)
CONTENTS = "contents.json"


def main():
    """Run the program whose name this file was called by; by any other name it is the first one."""
    if sys.version_info < OLDEST:
        restart_with_newer_python()
    with zipfile.ZipFile(sys.argv[0]) as archive:
        contents = json.loads(archive.read(CONTENTS).decode())
        sys.path.insert(0, unpacked(archive, fitting(contents)))
    name = os.path.basename(sys.argv[0])
    scripts = contents["scripts"]
    module, _, function = scripts.get(name, scripts[contents["default"]]).partition(":")
    sys.exit(getattr(importlib.import_module(module), function)())


def restart_with_newer_python():
    """Hand over to a Python of the PATH that is new enough."""
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        python = shutil.which(f"python3.{minor}")
        if python and subprocess.call([python, "-c", ""], stderr=subprocess.DEVNULL) == 0:  # pyenv's may lead nowhere
            os.execv(python, [python, *sys.argv])
    refuse(f"needs Python 3.{OLDEST[1]} or later; this is {platform.python_version()}")


def fitting(contents):
    """Return the folder's name and the wheels for this Python on this machine."""
    target = this_target()
    if target not in contents["targets"]:
        refuse(f"is not made for {target}; install it with: {contents['instead']}")
    return contents["targets"][target]


def this_target():
    """Name this Python and machine as the contents do."""
    system = {"linux": "linux", "darwin": "macos"}.get(sys.platform, sys.platform)
    if system == "linux" and not has_glibc():
        system = "linux-without-glibc-2.28"
    python = f"{sys.version_info[0]}.{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    if sys.implementation.name != "cpython":
        python = f"{sys.implementation.name}-{python}"
    return f"{python}-{system}-{platform.machine()}"


def has_glibc():
    """Tell whether the C library is the one that the wheels were built for, and new enough."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return False
    return name == "glibc" and [int(part) for part in version.split(".")[:2]] >= [2, 28]


def unpacked(archive, wheels):
    """Return the folder with the wheels' files."""
    root = cache_root()
    folder = os.path.join(root, wheels["checksum"]) if root else ""
    if root and os.path.isdir(folder):
        return folder
    scratch = tempfile.mkdtemp(prefix=".unpacking-", dir=root)
    try:
        for name in wheels["files"]:
            with archive.open(name) as wheel, zipfile.ZipFile(wheel) as files:
                files.extractall(scratch)
        if not root:
            atexit.register(shutil.rmtree, scratch, True)
            return scratch
        os.rename(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, True)
        if root and os.path.isdir(folder):  # somebody else was first
            return folder
        raise
    return folder


def cache_root():
    """Return a folder that nobody else can write to, or None."""
    home = os.path.expanduser("~")
    usual = os.path.join(home, "Library", "Caches") if sys.platform == "darwin" else os.path.join(home, ".cache")
    root = os.path.join(os.environ.get("XDG_CACHE_HOME") or usual, "kubectl-spool")
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        found = os.lstat(root)
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return root if ours and os.access(root, os.W_OK) else None


def refuse(sentence):
    """End with a sentence."""
    sys.exit(f"{os.path.basename(sys.argv[0])}: {sentence}")


if __name__ == "__main__":
    main()
