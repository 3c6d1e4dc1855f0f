"""Stand-ins, for one machine, for what a cluster has.

They import nothing of `trainyard`: they know only the public protocols that they stand in for.
"""
