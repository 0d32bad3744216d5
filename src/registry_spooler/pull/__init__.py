"""Pulling: an image of the registry as a docker archive, an OCI archive, or the file that it was made from.

Flow: `Puller` reads the metadata (`tree`, `platform`), lists the archive's entries (`docker`, `oci`) and writes them
with their tar headers to an `Output`, each blob piece by piece as the registry sends it. Memory does not grow with
the image.
"""

from registry_spooler.pull.errors import OutputClosed, PlatformNotFound
from registry_spooler.pull.output import Output, output_file, standard_output
from registry_spooler.pull.platform import parse_platform
from registry_spooler.pull.puller import Format, Puller

__all__ = [
    "Format",
    "Output",
    "OutputClosed",
    "PlatformNotFound",
    "Puller",
    "output_file",
    "parse_platform",
    "standard_output",
]
