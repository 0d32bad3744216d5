"""The health side: probes, metrics, a status for programs and a page for people, on one port.

    async with serve(spool.board, about, ping=client.ping, address="0.0.0.0", port=8086) as health:
        log(f"listening on port {health.port}")
        await spool.run(handler)

It reads the spool's board, keeps an eye on the registry and on the volume, and never writes anything.
"""

from registry_spooler.health.serve import Health, serve
from registry_spooler.health.status import About

__all__ = ["About", "Health", "serve"]
