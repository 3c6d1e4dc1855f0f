"""Control loops that a cluster needs: scheduler, workloads, endpoints, garbage collection; an API client."""
