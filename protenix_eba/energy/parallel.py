"""Many processes through joblib: on this machine, or on a cluster by joblib's own backends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from joblib import Parallel, parallel_config
from joblib.parallel import get_active_backend

from protenix_eba.core.errors import UserError
from protenix_eba.energy.choices import BACKENDS

__all__ = ["run_parallel"]


def run_parallel(
    tasks: Iterable[Any], jobs: int, backend: str = "loky", scheduler: str | None = None
) -> Iterator[Any]:
    """Yield the results of joblib's delayed calls as they come, in any order.

    Args:
        tasks: `joblib.delayed(function)(...)`, taken lazily.
        jobs: Processes on this machine; a scheduler's workers are all used.
        backend: "loky" (processes), "dask" or "ray".
        scheduler: Address of a running dask scheduler or ray head; without one, a cluster of
            `jobs` processes is started on this machine.

    Raises:
        UserError: No such backend, its package is missing, or nothing answers at the address.
    """
    with _active(backend, jobs, scheduler):
        active = get_active_backend()[0]
        lazily = active.supports_return_generator
        parallel = Parallel(
            n_jobs=jobs if backend == "loky" else -1,
            return_as="generator_unordered" if lazily else "list",
            batch_size=1,
            pre_dispatch="2*n_jobs",
        )
        yield from parallel(tasks)


def _active(backend: str, jobs: int, scheduler: str | None) -> AbstractContextManager[Any]:
    if backend == "loky":
        if scheduler is not None:
            raise UserError(
                f"--scheduler {scheduler} without a backend that has one",
                "add --backend dask or --backend ray",
            )
        return nullcontext()
    if backend not in BACKENDS:
        raise UserError(f"no backend {backend!r}: known are {', '.join(BACKENDS)}", "choose one")
    try:
        return {"dask": _dask, "ray": _ray}[backend](jobs, scheduler)
    except ImportError as error:
        raise UserError(
            f"--backend {backend} needs a package that is not installed: {error}",
            f'install it: pip install "protenix-eba[{backend}]"',
        ) from error


def _dask(jobs: int, scheduler: str | None) -> AbstractContextManager[Any]:
    import distributed

    @contextmanager
    def active() -> Iterator[None]:
        try:
            client = (
                distributed.Client(scheduler, timeout=30)
                if scheduler
                else distributed.Client(
                    n_workers=jobs, threads_per_worker=1, dashboard_address=None
                )
            )
        except OSError as error:
            raise UserError(
                f"no dask scheduler at {scheduler}: {error}",
                "start `dask scheduler`, check the port",
            ) from error
        with client, parallel_config(backend="dask"):
            yield

    return active()


def _ray(jobs: int, scheduler: str | None) -> AbstractContextManager[Any]:
    import ray
    from ray.util.joblib import register_ray

    @contextmanager
    def active() -> Iterator[None]:
        try:
            ray.init(address=scheduler, num_cpus=None if scheduler else jobs)
        except ConnectionError as error:
            raise UserError(
                f"no ray cluster at {scheduler}: {error}", "start `ray start --head`"
            ) from error
        register_ray()
        try:
            with parallel_config(backend="ray"):
                yield
        finally:
            ray.shutdown()

    return active()
