"""Processes that draw architectures."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading


def process_pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    """Fresh processes (forking one that runs JAX is not safe) that end when this one does, however it ends."""
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches every process: the parent decides
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
