"""What docker-compose.yaml needs besides the services themselves: secrets, the target's files, the first manifests.

A *target* is what Airflow works on: the local cluster of the `local` profile, or an EKS cluster with the `eks` profile.
"""
