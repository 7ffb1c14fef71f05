"""Data-parallel training on any number of GPUs of one machine, with no wrapper around the model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Worker:
    """This process among its peers."""

    rank: int
    count: int
    device: str

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def join() -> Worker:
    """Join the peers that `torchrun` started; alone without it."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if not torch.cuda.is_available():
        return Worker(0, 1, "cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(local)
    if count > 1:
        dist.init_process_group("nccl")
    return Worker(rank, count, f"cuda:{local}")


def leave(worker: Worker) -> None:
    """Say goodbye to the peers."""
    if worker.count > 1:
        dist.destroy_process_group()


def wait(worker: Worker) -> None:
    """Go on only once every peer is here."""
    if worker.count > 1:
        dist.barrier()


def average_gradients(parameters: Iterable[Tensor], worker: Worker) -> None:
    """Replace every gradient by its mean over the peers, in one message."""
    if worker.count == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= worker.count
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def same_everywhere(value: float, worker: Worker) -> float:
    """The leader's value, so that all peers take the same decision."""
    if worker.count == 1:
        return value
    box = torch.tensor([value], dtype=torch.float64, device=worker.device)
    dist.broadcast(box, 0)
    return float(box.item())


def gather_first(tensor: Tensor, worker: Worker) -> Tensor:
    """All peers' tensors of one shape, joined along the first axis, on every peer."""
    if worker.count == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(worker.count)]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
