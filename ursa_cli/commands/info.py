"""`ursa info`: the installation and what it can run, for bug reports."""

from typing import Any

from ursa_cli.options import shared as options
from ursa_cli.terminal import output
from ursa_core import amounts


def info(as_json: options.Json = False) -> None:
    """Show versions, devices and models of this installation.

    Takes about a second: whether bfloat16 is faster than float32 is measured.

    Examples:
      ursa info
      ursa info --json
    """
    output.configure(as_json=as_json)
    import platform
    from importlib.metadata import version

    import av
    import torch

    from ursa_core import __version__, devices
    from ursa_core.bundle.folder import shipped_models
    from ursa_core.bundle.summary import summary
    from ursa_core.parts import num_cores

    libraries = {name: ".".join(map(str, v)) for name, v in av.library_versions.items()}
    payload: dict[str, Any] = {
        "ursa": __version__, "python": platform.python_version(), "torch": version("torch"),
        "transformers": version("transformers"), "av": version("av"),
        "ffmpeg": getattr(av, "ffmpeg_version_info", None) or libraries["libavcodec"],
        "libraries": libraries, "platform": platform.platform(), "cores": num_cores(),
        "memory_bytes": devices.total_memory_bytes(torch.device("cpu")), "devices": [],
        "models": [],
    }  # fmt: skip
    shown = {**payload, "av": f"{payload['av']} (ffmpeg {payload['ffmpeg']})"}
    names = ("ursa", "python", "torch", "transformers", "av", "platform", "cores")
    rows = [(name, shown[name]) for name in names]
    rows.append(("memory", amounts.size(payload["memory_bytes"])))
    for kind in devices.available_devices():
        place = torch.device(kind)
        about: dict[str, Any] = {
            "device": kind,
            "name": f"cuda, {torch.cuda.get_device_name(place)}" if kind == "cuda" else kind,
            "memory_bytes": devices.total_memory_bytes(place),
            "flops": devices.matmul_rates(place),
            "bfloat16_faster": devices.pick_dtype("auto", place) == torch.bfloat16,
        }
        payload["devices"].append(about)
        dtype = "bfloat16" if about["bfloat16_faster"] else "float32"
        rates = ", ".join(f"{n} {_gigaflops(r)}" for n, r in about["flops"].items())
        memory = amounts.size(about["memory_bytes"])
        rows.append(("device", f"{about['name']}: {memory}, {rates}; {dtype} is used"))
    here = devices.total_memory_bytes(devices.pick_device("auto")) or 0
    for name, folder in shipped_models().items():
        needed = summary(folder).memory(torch.float32.itemsize).total
        payload["models"].append({"name": name, "memory_bytes": needed, "fits": needed < here})
        fits = "runs here" if needed < here else "needs more memory than there is"
        rows.append(("model", f"{name}: about {amounts.size(needed)} by default, {fits}"))
    if not payload["models"]:
        rows.append(("model", "none shipped"))
    output.data(payload, lines=[f"{name:<12}  {value}" for name, value in rows])


def _gigaflops(flops: float) -> str:
    return f"{flops / 1e9:.{0 if flops >= 1e10 else 1}f} GFLOP/s"
