"""A small asynchronous Kubernetes client for the stand-ins: requests, list-watch caches, work queues, events.

Why not `kubernetes_asyncio`: importing it takes 1.5 s and 100 MB in each process (aiohttp alone: 0.4 s, 38
MB), its
`Watch` cannot resume after 410 with a fresh list, and it has no cache. Three programs start at once on two
cores here.
"""
