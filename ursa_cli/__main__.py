"""``ursa`` and ``python -m ursa_cli``: run the command line of this process."""

import signal
import sys


def run() -> None:
    """Exit with the command's code; Ctrl-C counts from the first import on, until that is known.

    SIGTERM, by which schedulers stop a job, is Ctrl-C in all: the same cleanup, message and code.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from ursa_cli.terminal import streams as terminal
        from ursa_core.parts import share_cores_

        terminal.prepare()
        share_cores_()  # before torch is loaded
        from ursa_cli.main import main

        code = main(sys.argv[1:])
        terminal.finish()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\nhint: nothing was written\n")
        code = 130
    # Unloading torch takes a second, in which one more Ctrl-C would change the code.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    run()
