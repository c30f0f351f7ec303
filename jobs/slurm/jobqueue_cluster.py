"""A dask-jobqueue SLURM cluster behind a scheduler file: started and ended by jobqueue.sh.

Walltime: workers leave by themselves before SLURM ends them (--lifetime), staggered, and are replaced
(--lifetime-restart is off: the job queue starts new jobs, because ``adapt`` keeps the number of jobs up).
"""

import json
import os
import signal
import sys
import threading

from dask_jobqueue import SLURMCluster


def main(path: str) -> None:
    jobs = int(os.environ.get("GALBATCH_JOBS", "8"))
    gpus = int(os.environ.get("GALBATCH_GPUS", "1"))
    extra = [f"--gpus={gpus}"] if gpus else []
    cluster = SLURMCluster(
        queue=os.environ.get("GALBATCH_PARTITION"),
        account=os.environ.get("GALBATCH_ACCOUNT"),
        walltime=os.environ.get("GALBATCH_WALLTIME", "01:00:00"),
        cores=3 if gpus else 1,  # threads of the one process: read ahead, device, measure and write
        processes=1,
        job_cpu=4,
        memory="16GB",
        job_extra_directives=[*extra, "--requeue"],
        worker_extra_args=["--lifetime", "55m", "--lifetime-stagger", "4m", "--no-dashboard"],
        scheduler_options={"dashboard_address": ":8787"},
        log_directory="galbatch-workers",
    )
    cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)  # a fixed number, filled up again when one ends
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump({"address": cluster.scheduler_address, "id": "galbatch", "workers": {}}, file)
    os.replace(path + ".tmp", path)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    cluster.close()


if __name__ == "__main__":
    main(sys.argv[1])
