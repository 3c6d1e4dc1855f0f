"""The control loops that a cluster needs: scheduler, workloads, endpoints, garbage collection. An API client."""
