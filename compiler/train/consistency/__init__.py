"""Training over a parameter server: bulk-synchronous, stale-synchronous with a bound, or asynchronous reads.

`core` says which reads are allowed and checks those that were made; `shard` holds values; `learner` makes updates;
`client` is a worker's side. None of them knows a transport: `simulate` runs them in simulated time, `cluster` on Ray.

Sources: More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server (Ho et al., NIPS 2013);
Scaling Distributed Machine Learning with the Parameter Server (Li et al., OSDI 2014).
"""
