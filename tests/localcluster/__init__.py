"""`./dev cluster`: a real Kubernetes on this machine, in namespaces of its own.

A node is a set of namespaces (network, mounts, processes, host name) that is held by one process, and in which
containerd, kubelet and kube-proxy run as they do on a machine: /run, /var and /tmp are the node's own. The first node
also runs etcd and the control plane. When the process that holds the first node's namespaces ends, the kernel ends
everything in them, and mounts, links and addresses are gone with them.

`cluster.py` is the flow; `__main__.py` the command line.
"""
