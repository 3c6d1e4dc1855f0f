"""Load tests: what is asked (`workload`), how a stream is read (`http1`, `sse`, `exchange`), and what is kept
(`samples`, `summary`).

Locust drives `locustfile` in a process of its own, because gevent's patching of the standard library does not
go together with boto3. Nothing here imports gevent or Locust but `locustfile`.
"""
