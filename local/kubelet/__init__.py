"""A node agent that runs each container as a process of this machine, and is an ordinary client of the API
server.
"""
