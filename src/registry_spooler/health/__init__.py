"""The health port: probes, metrics, a status for programs and a page for people.

    async with serve(spool.state, about, ping=client.ping, address="0.0.0.0", port=8086) as health:
        log(f"listening on port {health.port}")
        await spool.run(handler)

It reads the spool's state, asks the registry and the volume how they are, and never writes anything.
"""
