"""A Dask LocalCluster in a process of its own, which can be killed: `python dask_cluster.py WORKERS MEMORY`.

It prints the scheduler's address and each worker's process id as a line of JSON, and ends when its standard input does.
"""

from __future__ import annotations

import json
import logging
import sys

import dask
from distributed import LocalCluster

if __name__ == "__main__":
    dask.config.set({"distributed.comm.timeouts.connect": "5s"})
    with LocalCluster(
        n_workers=int(sys.argv[1]),
        threads_per_worker=1,
        memory_limit=sys.argv[2],
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    ) as cluster:
        pids = [nanny.pid for nanny in cluster.workers.values()]
        sys.stdout.write(json.dumps({"address": cluster.scheduler_address, "workers": pids}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
