"""Addresses, links and routes: nodes on one bridge in the first node's network, each with its pods behind it."""

from __future__ import annotations

import subprocess

from localcluster.namespaces import Namespaces

SERVICES = "10.98.0.0/24"
FIRST_SERVICE = "10.98.0.1"
"""The API server's own Service."""
PODS = "10.97.0.0/16"


def node_address(number: int) -> str:
    """Return the address of a node; nodes count from 1."""
    return f"10.99.0.{number}"


def pod_network(number: int) -> str:
    """Return the network of a node's pods."""
    return f"10.97.{number}.0/24"


def connect(number: int, node: Namespaces, first: Namespaces) -> None:
    """Give a node its address, and a route to everything: a Service's address needs one before it is translated."""
    if number == 1:
        _ip(node, "link add nodes type bridge")
    else:
        _ip(first, f"link add node{number} type veth peer name nodes netns {node.pid}")
        _ip(first, f"link set node{number} master nodes up")
    _ip(node, f"address add {node_address(number)}/24 dev nodes")
    _ip(node, "link set nodes up")
    _ip(node, "route add default dev nodes")


def route_pods(nodes: list[Namespaces]) -> None:
    """Let every node know behind which node the other pods are."""
    for at, node in enumerate(nodes, 1):
        for other in range(1, len(nodes) + 1):
            if other != at:
                _ip(node, f"route replace {pod_network(other)} via {node_address(other)}")


def _ip(node: Namespaces, arguments: str) -> None:
    # Only the network is entered: `netns` takes the machine's number of a process.
    subprocess.run([*node.enter("--net"), "ip", *arguments.split()], check=True)
