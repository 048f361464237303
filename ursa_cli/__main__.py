"""``ursa`` and ``python -m ursa_cli``: run the command line of this process."""

import sys


def run() -> None:
    """Exit with the command's code; Ctrl-C counts from the first import on."""
    try:
        from ursa_cli.main import main

        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\nhint: nothing was written\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    run()
