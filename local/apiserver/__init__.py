"""An emulated Kubernetes API server: one asyncio process, all state in memory."""
