"""What a run leaves in the store.

`totals` is what is kept of each answer, and its sums; `parts` are the objects that rows are flushed in; `finalize` puts
the manifests once all rows are in.
"""
