"""A Slurm of one's own on this machine: munged, slurmctld and slurmd, without systemd, on the loopback interface alone.

  python -m tests.slurm.cluster COMMAND ...

runs a command inside such a cluster (its ``srun``, ``sbatch`` and ``squeue`` find it by SLURM_CONF) and ends with its
exit status; without a command it waits for Ctrl-C and prints what to export. It needs Debian's packages ``slurmctld
slurmd slurm-client munge``. Everything lies in a temporary folder, ports are free ones, and the daemons end with the
process that started them, however it ends.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
_SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # where daemons are; not on every PATH

# Jobs of any size share the CPUs that are said to be here, whether or not the machine has them. A requeued job waits
# until its credential has expired (cred_expire). A job told to stop has KillWait seconds for its last checkpoint, one
# that makes room for a job of the partition "urgent" GraceTime seconds before that, where it is in "graceful".
_CONFIGURATION = """\
ClusterName=one_machine
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_min_interval=100000,sched_interval=1,batch_sched_delay=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait={kill_wait}
InactiveLimit=0
MinJobAge=300
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE OverTimeLimit=0 State=UP
PartitionName=graceful Nodes=localhost GraceTime=60 State=UP
PartitionName=urgent Nodes=localhost PriorityTier=2 State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here, None when one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_SEARCH) is None]
    return f"Slurm is not installed ({', '.join(absent)} not found)" if absent else None


@contextlib.contextmanager
def cluster(cpus: int = 4, kill_wait: int = 30) -> Iterator[dict[str, str]]:
    """Yields the environment variables with which commands use the cluster; jobs and daemons end with the block.

    Args:
      cpus: that jobs may take in all.
      kill_wait: seconds between SIGTERM and SIGKILL for a job that is cancelled, requeued or out of time.

    Raises:
      RuntimeError: a daemon ended or did not answer; the message holds the end of its log.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    controller_port, node_port = _free_ports(2)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder,
            controller_port=controller_port,
            node_port=node_port,
            user=getpass.getuser(),
            cpus=cpus,
            kill_wait=kill_wait,
        )
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    variables = {"SLURM_CONF": str(configuration), "PATH": _SEARCH}
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}"]
        munged += [f"--{kind}-file={folder}/munged.{kind}" for kind in ("log", "pid", "seed")]
        _daemon(stack, munged, folder, variables, lambda: (folder / "munge.socket").exists())
        _daemon(stack, ["slurmctld", "-D", "-c"], folder, variables, lambda: _answers(variables, "scontrol", "ping"))
        idle = lambda: _answers(variables, "sinfo", "--noheader", "--format=%T", wanted="idle")  # noqa: E731
        _daemon(stack, ["slurmd", "-D", "-N", "localhost"], folder, variables, idle)
        stack.callback(_end_jobs, variables)
        yield variables


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _daemon(
    stack: contextlib.ExitStack, command: list[str], folder: Path, variables: dict[str, str], ready: Callable[[], bool]
) -> None:
    """Starts a daemon that ends with ``stack``, or with this process, and waits until it is ready."""
    log = folder / f"{command[0]}.out"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            # Without a fork of this interpreter (preexec_fn), which is not safe beside jax's threads.
            ["setpriv", "--pdeathsig", "TERM", str(shutil.which(command[0], path=_SEARCH)), *command[1:]],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    stack.callback(_end, process)
    deadline = time.monotonic() + 30
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            state = "does not answer" if process.poll() is None else f"ended with {process.returncode}"
            raise RuntimeError(f"{command[0]} {state}:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run(variables: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60)


def _answers(variables: dict[str, str], *command: str, wanted: str = "") -> bool:
    result = _run(variables, *command)
    return result.returncode == 0 and wanted in result.stdout


def _end_jobs(variables: dict[str, str]) -> None:
    """Kills every job and waits until the node has forgotten them, so that no step outlives the daemons."""
    deadline = time.monotonic() + 30
    while _run(variables, "squeue", "--noheader").stdout.strip() and time.monotonic() < deadline:
        _run(variables, "scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}")
        _run(variables, "scancel", f"--user={getpass.getuser()}")
        time.sleep(0.3)


def main(command: list[str]) -> int:
    if reason := missing():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with cluster() as variables:
        if command:
            return subprocess.run(command, env=os.environ | variables).returncode
        print("\n".join(f"export {name}={value}" for name, value in variables.items()), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
