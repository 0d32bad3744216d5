"""The terminal of somebody who pushes an image, builds it again, pushes what has changed, and has it running."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import demo
from pictures.pod_scene import pod_scene
from pictures.screen import Screen
from support.cluster.terminal import Terminal
from support.images import archives
from support.images.archive_parts import Image, layer

COLUMNS = 104
"""A pull reference with its digest on one line."""
COMMANDS = (
    "kubectl spool push app.tar catalog/app:v1",
    "kubectl spool push rebuilt.tar catalog/app:v2 --set deployment/web",
    "kubectl spool tags catalog/app",
)


async def draw_terminal(path: Path) -> list[str]:
    """Write the picture; returns its lines."""
    with TemporaryDirectory(prefix="pictures-") as folder:
        async with pod_scene(Path(folder)) as scene:
            library = demo.python_layer()
            for name, program in (("app.tar", "print('one')"), ("rebuilt.tar", "print('two')")):
                image = Image(layers=(library, layer(program, path="app.py")))
                (scene.folder / name).write_bytes(archives.podman_docker(image))
            scene.api.workloads.add("deployments", "web")
            scene.api.workloads.rolls["deployments/web"] = [
                {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1},
                {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
            ]
            terminal = Terminal(scene.folder, scene.kubeconfig)
            screen = Screen(COLUMNS)
            for at, command in enumerate(COMMANDS):
                screen.write(b"\r\n" if at else b"")
                code = await screen.run(command, terminal.variables, scene.folder)
                if code:
                    raise RuntimeError("\n".join([*screen.lines, f"exit code {code}"]))
            path.write_text(screen.svg("kubectl spool"))
            return screen.lines
