#!/usr/bin/env bash
# Runs one training in several processes on this machine.
#
#   launch/local.sh --config=configs/default.py                      # two processes, a tower in each
#   PROCESSES=4 launch/local.sh --config=configs/imagenet2012.py     # a workstation of four GPUs
#   launch/local.sh --dry_run --config=configs/default.py            # prints the commands
#
# Arguments go to `python -m alexnet_jax.main`. Run again, the same command goes on where the run was.
# Needs: bash 5.1; the repository as the working directory; an environment with the requirements. Each process takes the
#   GPU of its number; on a CPU it makes its devices itself.
# Variables: PROCESSES, how many (2). PORT, where they meet (a free one). PYTHON, the interpreter (python).
#   GRACE, seconds that the others have to leave once a process has failed, before they are killed (30).
#
# SIGTERM and Ctrl-C are passed on, and the run saves before it leaves. The status is that of the process that failed
# first, else 0: 75 and 130 after a signal, 2 for a mistake, 137 for a process that was killed.
set -euo pipefail

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 501)); then
  echo "error: this is bash $BASH_VERSION and the script needs 5.1" >&2
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

# The command of a process by its number, as words.
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

declare -A ids # of the processes that run, by their pid
# shellcheck disable=SC2329 # the traps call it
forward() {
  local running
  for running in "${!ids[@]}"; do kill -s "$1" "$running" || true; done 2>/dev/null
}
trap 'forward TERM' TERM HUP
trap 'forward INT' INT
trap 'forward KILL' USR1 # sent below

# A process group for each: a terminal's Ctrl-C then comes to this script alone, and to the processes once, from here. A
# second one would make them leave without having saved.
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
  if [[ -z ${pid:-} ]]; then continue; fi # a signal came, and was passed on
  id=${ids[$pid]}
  unset "ids[$pid]"
  if ((code && !status)); then
    status=$code
    if ((${#ids[@]})); then
      echo "process $id left with status $code; the others have $grace seconds" >&2
      (sleep "$grace" && kill -s USR1 $$) &
      timer=$!
    fi
  fi
done
if [[ -n $timer ]]; then kill -s TERM -- "-$timer" 2>/dev/null || true; fi
exit "$status"
