"""Uniform discrete diffusion with a metric path: the library behind the ``ursa`` command."""

__version__ = "0.1.0"
