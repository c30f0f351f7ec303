"""What each process of a test of training in parallel does.

A module of its own, under a name that a new process can import: pytest's names for test files are not.
"""

import numpy as np
import torch
import torch.distributed as dist
from tiny import NETWORK

from galbatch.training.library import Library, SourceImage
from galbatch.training.stamps import StampSource
from galbatch.training.trainer import TrainConfig, Trainer

SHORT = TrainConfig(steps=6, batch=4, sizes=(32,), size_shares=(1.0,), warmup=2)
WORLD = 2


def galaxy(i, n=48):
    y, x = np.indices((n, n)) - n / 2
    return np.exp(-np.hypot(x, y * (1 + 0.3 * (i % 3))) / (3 + i % 4))


def source():
    return StampSource(Library((SourceImage(galaxy(i), f"g{i}", "test") for i in range(5)), npix=48))


def trainer(folder, rank, world=WORLD):
    return Trainer(NETWORK, SHORT, source(), folder, "cpu", rank, world)


def work(rank, folder):
    """One process: six steps straight, and six steps with a stop after three; leaves what it ended with."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    straight = trainer(folder, rank)
    first = straight.batch(0)[0].clone()
    straight.train_step()
    after_one = [p.detach().clone() for p in straight.params]
    for _ in range(5):
        straight.train_step()
    stopped = trainer(folder, rank)
    for _ in range(3):
        stopped.train_step()
    if rank == 0:
        stopped.save()
    dist.barrier()
    resumed = trainer(folder, rank)
    resumed.load()
    for _ in range(3):
        resumed.train_step()
    left = {"first": first, "one": after_one, "straight": straight.params, "resumed": resumed.params}
    torch.save(left, folder / f"rank{rank}.pt")
    dist.destroy_process_group()
