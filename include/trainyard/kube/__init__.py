"""The cluster seam: what Trainyard reads from Kubernetes and writes to it."""
