"""A stand-in of Karpenter: pending pods become NodeClaims, launched claims become Nodes. An ordinary API
client.
"""
