"""A worker process of the process backend: ``python -m fedlabels.simulation.process_worker FD``."""

import os
import select
import signal
import socket
import sys
import threading

from fedlabels.simulation.channel import Channel
from fedlabels.worker.worker import Worker


def serve(channel: Channel) -> None:
    """Do what the other end asks for until it is gone.

    The first object is the `WorkerSpec`; it is answered with a problem, or "". Each request names
    one of the worker's methods. The answer is whether it went well, and the result or what went
    wrong.
    """
    try:
        worker = Worker(channel.receive())
    except Exception as error:
        channel.send(f"{type(error).__name__}: {error}")
        return
    channel.send("")
    while True:
        name, arguments = channel.receive_request()
        try:
            answer = True, getattr(worker, name)(*arguments)
        except Exception as error:
            answer = False, f"{type(error).__name__}: {error}"
        channel.send(answer)


def end_with(connection: socket.socket) -> None:
    """End this process as soon as nobody is at the other end of its socket."""
    watch = select.poll()
    watch.register(connection, 0)  # a hang-up is told of always; what arrives is not looked at
    watch.poll()
    os._exit(0)


def main() -> None:
    """Serve the socket whose descriptor is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then closes us
    connection = socket.socket(fileno=int(sys.argv[1]))
    # also in the middle of a range: a run that was killed must not go on here beside its resume
    threading.Thread(target=end_with, args=(connection,), daemon=True).start()
    try:
        serve(Channel(connection))
    except (EOFError, OSError):
        os._exit(0)  # the run is gone: nobody waits for what is left to clean up


if __name__ == "__main__":
    main()
