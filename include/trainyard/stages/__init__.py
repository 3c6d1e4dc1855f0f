"""One idempotent file a stage, in the order of the DAG.

A stage is a function of (release record, live cluster, S3): it reads what is, does what is missing and says
what it
did. Running it twice changes nothing the second time. Three shapes, told apart by what a module offers:

    run(ctx, release) -> Done | Skip                  does its work at once
    pod(ctx, release) -> manifest | Skip              work for a pod; finish(ctx, release) -> Done checks the
    result
    watch(ctx, release) -> Watch | Skip               something to wait for; finish(ctx, release, note) ->
    Done

A pod's module may also offer progress(ctx, release) -> words, which the record shows while the pod runs; it
and a watching one understand(ctx, release, error) -> error, for what a pod failed of: it does what the pod
was not allowed to do.
"""
