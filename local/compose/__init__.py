"""What docker-compose.yaml needs besides its services: secrets, the target's files, the first manifests.

A *target* is what Airflow works on: the local cluster (profile `local`) or an EKS cluster (profile `eks`).
"""
