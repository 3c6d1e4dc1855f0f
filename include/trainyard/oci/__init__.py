"""Models and bundles as OCI artifacts in a registry such as ECR: the same blobs under the same digests.

Above `trainyard.store`; uses `oras` and `requests`, so it runs where the command does, not in AWS's images.
"""
