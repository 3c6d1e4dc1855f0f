"""What Trainyard keeps in S3: blobs by digest, manifests, the ledger, channels and leases.

Runs in pods too, so: the standard library and boto3 only.
"""
