"""Node processes in one process group, and a node that listens to them: for tests and benchmarks of whole graphs."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor

__all__ = ["NOT_LET_GO", "PATIENCE_S", "Graph", "GraphError", "addresses_of", "running_graph"]

# Not a measure of speed: how long a hung graph is waited for before it is given up.
PATIENCE_S = 120.0
# How long a node that is told to end may take.
_ENDING_S = 20.0
# What a node prints that has done all that is its own, and that Fast DDS of the wheels does not let go of: see
# docs/troubleshooting.md.
NOT_LET_GO = re.compile(
    r'^Timeout \(.*\(most recent call first\):\n  File "[^"]*'
    r'(rclpy/node\.py", line \d+ in destroy_node|dagger_ros/nodes/base\.py", line \d+ in _leave)$',
    re.MULTILINE | re.DOTALL,
)
# How long what the nodes that have ended said last may be on its way.
_LEAVING_S = 2.0
# A request to a node that has just been started may be lost: it is made again after so long.
_ANSWER_S = 2.0
_LIBC, _PR_SET_PDEATHSIG = ctypes.CDLL(None), 1  # linux/prctl.h


class GraphError(Exception):
    """A graph does not do what it was waited for, with its logs."""


class Graph:
    """Processes of nodes, each by its name; see `running_graph`."""

    def __init__(self, context: Any, log: Path) -> None:
        self.node = rclpy.create_node("listener", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.group = 0
        self._log = log
        self._clients: dict[str, Any] = {}

    def start(self, name: str, remap: Mapping[str, str] | None = None, **parameters: object) -> None:
        """Starts a node, or a killed one again; the first one's process leads the group.

        Args:
            name: Of the node.
            remap: Topics that go by another name.
            parameters: Of the node.
        """
        arguments = [
            f"{key}:={str(value).lower() if isinstance(value, bool) else value}" for key, value in parameters.items()
        ]
        options = [item for argument in arguments for item in ("-p", argument)]
        options += [item for old, new in (remap or {}).items() for item in ("-r", f"{old}:={new}")]
        self.start_command(name, [sys.executable, "-m", f"dagger_ros.nodes.{name}", "--ros-args", *options])

    def start_command(self, name: str, command: list[str]) -> None:
        """The same with a process that is told to end like a node, whatever it is."""
        with (self._log / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=self._join_group,
            )
        self.group = self.group or self.processes[name].pid

    def _join_group(self) -> None:
        """Runs in the child: its group is the graph's, and it does not outlive us, not even our own kill -9."""
        os.setpgid(0, self.group)
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def kill(self, name: str) -> None:
        """SIGKILL: the node can do nothing about it."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Listens until something is true.

        Raises:
            GraphError: If it does not become true, or a node ends by itself.
        """
        end_s = time.monotonic() + PATIENCE_S
        while not done():
            self.executor.spin_once(timeout_sec=1.0)
            dead = {n: p.returncode for n, p in self.processes.items() if p.poll() is not None}
            if dead:
                raise GraphError(f"ended by themselves: {dead}\n{self.logs()}")
            if time.monotonic() > end_s:
                raise GraphError(f"nothing happened\n{self.logs()}")

    def ask(self, type_: Any, name: str, request: Any) -> Any:
        """Calls a service once and gives the answer, or None where it is not answered: it may have been lost."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(type_, name)
        client = self._clients[name]
        self.wait_for(client.service_is_ready)
        future, end_s = client.call_async(request), time.monotonic() + _ANSWER_S
        self.wait_for(lambda: future.done() or time.monotonic() >= end_s)
        if future.done():
            return future.result()
        client.remove_pending_request(future)
        return None

    def has_publishers(self, *topics: str) -> bool:
        return all(self.node.count_publishers(topic) > 0 for topic in topics)

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()}" for p in sorted(self._log.glob("*.log")))

    def end(self) -> dict[str, int]:
        """Tells every node to end, kills what does not, and gives the exit statuses of those that did not end well."""
        try:
            for process in self.processes.values():
                process.send_signal(signal.SIGINT)
            for process in self.processes.values():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_ENDING_S)
        finally:
            if self.group:
                with suppress(ProcessLookupError):
                    os.killpg(self.group, signal.SIGKILL)
        codes = {name: process.wait() for name, process in self.processes.items()}
        return {name: code for name, code in codes.items() if code and not (code == 1 and self._was_not_let_go(name))}

    def wait_until_alone(self) -> None:
        """Lets the middleware hear that the nodes are gone, since it may not let go of a listener meanwhile either."""
        end_s = time.monotonic() + _LEAVING_S
        while len(self.node.get_node_names()) > 1 and time.monotonic() < end_s:
            self.executor.spin_once(timeout_sec=0.01)

    def _was_not_let_go(self, name: str) -> bool:
        return NOT_LET_GO.search((self._log / f"{name}.log").read_text()) is not None

    def is_gone(self) -> bool:
        """Whether nobody of the process group is left."""
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return True
        return False


@contextmanager
def running_graph(domain: int, log: Path) -> Iterator[Graph]:
    """A graph without nodes yet, that ends with the block whatever happens in it.

    Args:
        domain: ROS domain; the nodes take it from the environment.
        log: Folder for what the nodes print.

    Raises:
        GraphError: If a node did not end well, or somebody of the group is left.
    """
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    graph = Graph(context, log)
    try:
        yield graph
    finally:
        try:
            failed = graph.end()
            graph.wait_until_alone()
        finally:
            graph.executor.shutdown()
            graph.node.destroy_node()
            context.try_shutdown()
    if failed:
        raise GraphError(f"ended with {failed}\n{graph.logs()}")
    if not graph.is_gone():
        raise GraphError(f"somebody of the process group {graph.group} is left")


def addresses_of(pid: int) -> set[str]:
    """Addresses of a process's UDP and TCP sockets."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("udp", "udp6", "tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                address = bytes.fromhex(fields[1].partition(":")[0])
                found.add(".".join(map(str, address[::-1])) if len(address) == 4 else address.hex())
    return found
