"""Is a cluster ready for Trainyard? Looks at what a release needs, and says how to mend what is not there.

Reads only, but for a probe below `doctor/` in the bucket, which it deletes again.
"""
