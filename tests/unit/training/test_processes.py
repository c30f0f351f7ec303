"""Training over several processes, and training that is killed: the same weights and the same curve."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from tiny import training_toml
from two_processes import SHORT, WORLD, galaxy, trainer, work


def test_two_processes_hold_the_same_weights_average_their_gradients_and_resume(tmp_path):
    mp.spawn(work, (tmp_path,), WORLD)
    a, b = (torch.load(tmp_path / f"rank{r}.pt", weights_only=False) for r in range(WORLD))
    assert not torch.equal(a["first"], b["first"]), "every process draws its own stamps"
    for p, q in zip(a["straight"], b["straight"], strict=True):
        assert torch.equal(p, q)
    for p, q in zip(a["straight"], a["resumed"], strict=True):
        assert torch.equal(p, q)
    whole, halves = trainer(tmp_path, 0), [trainer(tmp_path, r) for r in range(WORLD)]
    for part in halves:
        clean, sigma, noise = part.batch(0)
        part.loss(clean, sigma, noise)[0].backward()
    for p, *parts in zip(whole.params, *(h.params for h in halves), strict=True):
        p.grad = sum(part.grad for part in parts) / WORLD
    torch.nn.utils.clip_grad_norm_(whole.params, SHORT.clip)
    whole.optimiser.step(whole.learning_rate())
    for p, q in zip(whole.params, a["one"], strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_killed_command_goes_on_with_the_same_curve(tmp_path):
    np.save(tmp_path / "galaxies.npy", np.stack([galaxy(i) for i in range(12)]).astype(np.float32))
    (tmp_path / "tiny.toml").write_text(
        training_toml({"files": "galaxies.npy"}, steps=400, validate_every=200, checkpoint_every_s=0.0)
    )
    command = [sys.executable, *f"-m galbatch train {tmp_path / 'tiny.toml'} --stamps 16 --out".split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "straight")], check=True, env=environment, capture_output=True)
    log = tmp_path / "killed" / "log.jsonl"
    process = subprocess.Popen([*command, str(log.parent)], env=environment, stderr=subprocess.DEVNULL)
    while not (log.is_file() and len(log.read_text().splitlines()) >= 3):
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(log.read_text().splitlines()) < 20
    subprocess.run([*command, str(log.parent)], check=True, env=environment, capture_output=True)
    curves = [
        [{k: v for k, v in json.loads(line).items() if k not in ("elapsed_s", "draw_share")}
         for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("straight", "killed")
    ]  # fmt: skip
    assert curves[0] == curves[1] and len(curves[0]) == 20
    models = [
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("straight", "killed")
    ]
    assert models[0] == models[1]
