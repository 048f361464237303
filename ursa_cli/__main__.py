"""``python -m ursa_cli`` is ``ursa``."""

from ursa_cli.main import run

run()
