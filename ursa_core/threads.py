"""How threads share the cores with other processes; needs no torch, as it must come before it."""

import os
from collections.abc import Mapping, MutableMapping


def num_cores(environment: Mapping[str, str] = os.environ) -> int:
    """Cores that are this process's own: those it may run on, shared among a launcher's ranks.

    ``LOCAL_WORLD_SIZE``, which ``torchrun`` sets, says how many processes share the machine.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # containers and schedulers may leave fewer
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    ranks = environment.get("LOCAL_WORLD_SIZE", "")
    return max(1, cores // max(1, int(ranks) if ranks.isdecimal() else 1))


def share_cores_(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have threads that wait sleep, not spin, and divide the cores among a launcher's ranks.

    OpenMP threads spin at every barrier, so that where another process holds a core, all others
    burn their time until it is scheduled again. The runtimes read the environment when they are
    loaded: call this before torch is imported. Whatever the user has set stays.

    Args:
        environment: to be changed.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "0")  # GNU's libgomp
        environment.setdefault("KMP_BLOCKTIME", "0")  # LLVM's libomp and Intel's libiomp
    if environment.get("LOCAL_WORLD_SIZE", "1") != "1":
        environment.setdefault("OMP_NUM_THREADS", str(num_cores(environment)))
