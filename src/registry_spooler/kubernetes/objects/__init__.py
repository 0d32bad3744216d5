"""API objects that are worked with: nodes, the pods that try an image, workloads and their rollouts."""
