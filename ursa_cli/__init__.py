"""The ``ursa`` command line."""
