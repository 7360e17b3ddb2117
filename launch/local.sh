#!/usr/bin/env bash
# Runs one training in several processes on this machine.
#
#   launch/local.sh --config=configs/default.py                      # two processes; on a CPU, a tower in each
#   PROCESSES=4 launch/local.sh --config=configs/imagenet2012.py --config.dataset.workers=8
#                                                                    # a workstation with four GPUs and 32 cores
#   launch/local.sh --dry_run --config=configs/default.py            # prints the commands
#
# Arguments go to `python -m alexnet_jax.main`. The same command resumes a run.
# Needs: bash 5.1; the repository as the working directory; an environment with the requirements. Process i uses GPU i.
#   On a CPU each process makes its devices.
# Variables: PROCESSES, number of processes (2). PORT, where process 0 listens (a free port). PYTHON, the interpreter
#   (python). GRACE, seconds between the failure of a process and the kill of the others (30).
#
# The script forwards SIGTERM and Ctrl-C, and the run saves before it ends. The status is that of the process that
# failed first, or 0: 75 and 130 after a signal, 2 for a mistake, 137 for a killed process.
set -euo pipefail

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 501)); then
  echo "error: this is bash $BASH_VERSION and the script needs 5.1; macOS: brew install bash" >&2
  exit 2
fi
processes=${PROCESSES:-2}
grace=${GRACE:-30}
python=${PYTHON:-python}
for variable in processes grace; do
  if [[ ! ${!variable} =~ ^[1-9][0-9]*$ ]]; then
    echo "error: ${variable^^} is '${!variable}', not a number from 1" >&2
    exit 2
  fi
done

dry_run=false
arguments=()
for argument in "$@"; do
  if [[ $argument == --dry_run ]]; then dry_run=true; else arguments+=("$argument"); fi
done

free_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
port=${PORT:-$("$python" -c "$free_port")}

# Sets `command` to the words of the command for a process number.
set_command() {
  command=(env "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" "JAX_NUM_PROCESSES=$processes" "JAX_PROCESS_ID=$1"
    "JAX_LOCAL_DEVICE_IDS=$1" "$python" -u -m alexnet_jax.main --distributed=on "${arguments[@]}")
}

if $dry_run; then
  for ((id = 0; id < processes; id++)); do
    set_command "$id"
    echo "${command[*]@Q} &"
  done
  exit
fi

declare -A ids # numbers of the running processes, by pid
# shellcheck disable=SC2329 # the traps call it
forward() {
  local running
  for running in "${!ids[@]}"; do kill -s "$1" "$running" || true; done 2>/dev/null
}
trap 'forward TERM' TERM HUP
trap 'forward INT' INT
trap 'forward KILL' USR1 # sent below

# Each process has a process group. Ctrl-C in a terminal then reaches this script alone, which forwards it once. A
# process that received Ctrl-C twice would end without a save.
set -m
for ((id = 0; id < processes; id++)); do
  set_command "$id"
  "${command[@]}" &
  ids[$!]=$id
done

status=0
timer=
while ((${#ids[@]})); do
  code=0
  wait -n -p pid "${!ids[@]}" 2>/dev/null || code=$?
  if [[ -z ${pid:-} ]]; then continue; fi # a signal came and was forwarded
  id=${ids[$pid]}
  unset "ids[$pid]"
  if ((code && !status)); then
    status=$code
    if ((${#ids[@]})); then
      echo "process $id left with status $code; the others have $grace seconds" >&2
      (sleep "$grace" && kill -s USR1 $$) &
      timer=$!
      disown "$timer" # bash prints no line about its end
    fi
  fi
done
if [[ -n $timer ]]; then kill -s TERM -- "-$timer" 2>/dev/null || true; fi
exit "$status"
