#!/usr/bin/env bash
# Creates a TPU VM or a slice of several, runs one training on all its workers, and deletes it.
#
#   export NAME=alexnet ZONE=us-east5-b ACCELERATOR=v6e-16 RUNTIME=v2-alpha-tpuv6e WORKDIR=gs://my-bucket/runs/alexnet
#   launch/tpu_vm.sh create --data-disk=source=projects/P/zones/Z/disks/D,mode=read-only   # a disk with the data
#   gcloud compute tpus tpu-vm ssh $NAME --zone=$ZONE --worker=all --command='sudo mkdir -p /mnt/data &&
#     sudo mount -o ro,noload /dev/sdb /mnt/data'                                # where all workers see it
#   launch/tpu_vm.sh copy
#   launch/tpu_vm.sh run --config=configs/imagenet2012.py --data_dir=/mnt/data   # starts, then shows the log
#   launch/tpu_vm.sh log      # shows the log again; Ctrl-C ends the display, not the run
#   launch/tpu_vm.sh stop     # SIGTERM: the run saves; `run` with the same arguments resumes
#   launch/tpu_vm.sh fetch    # copies the workdir into runs/
#   launch/tpu_vm.sh delete   # the VM costs money until then
#   launch/tpu_vm.sh --dry_run run --config=...   # prints the commands; works with every action
#
# `copy` copies the committed files (git's HEAD) to all workers and installs the requirements there. Arguments of `run`
# go to `python -m alexnet_jax.main`, and those of `create` to gcloud. After a maintenance or a preemption: `create` and
# the mount if the VM is gone, then `copy` and `run`.
# Needs: bash 4.4; the repository as the working directory; gcloud, signed in, with a default project that has the TPU API; a
#   bucket that the TPU's service account may write (roles storage.objectUser and storage.legacyBucketReader); the
#   prepared data on a disk that all workers mount at the same path.
# Variables: NAME, ZONE, ACCELERATOR, RUNTIME, as `gcloud compute tpus` lists them. WORKDIR, on Cloud Storage, because
#   each worker writes its part of a checkpoint. PREEMPTIBLE, `true` for a spot VM (false).
set -euo pipefail

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "error: this is bash $BASH_VERSION and the script needs 4.4; macOS: brew install bash" >&2
  exit 2
fi
dry_run=false
action=
arguments=()
for argument in "$@"; do
  if [[ $argument == --dry_run ]]; then
    dry_run=true
  elif [[ -z $action ]]; then
    action=$argument
  else
    arguments+=("$argument")
  fi
done

for variable in NAME ZONE ACCELERATOR RUNTIME WORKDIR; do
  if [[ -z ${!variable:-} ]]; then
    echo "error: $variable is not set; the head of $0 has an example" >&2
    exit 2
  fi
done
if [[ $WORKDIR != gs://* ]]; then
  echo "error: WORKDIR is '$WORKDIR', not a gs:// address, and a worker's own disk holds a part of each checkpoint only" >&2
  exit 2
fi

if [[ ${#arguments[@]} -gt 0 && $action != run && $action != create ]]; then
  echo "error: '$action' takes no arguments, and ${arguments[0]} is given" >&2
  exit 2
fi

do_it() {
  if $dry_run; then echo "${*@Q}"; else "$@"; fi
}

tpu=(gcloud compute tpus tpu-vm)

# Runs a shell command on the given workers.
on() {
  do_it "${tpu[@]}" ssh "$NAME" --zone="$ZONE" --worker="$1" --command="$2"
}

show_log() {
  on 0 'tail -n 100 -F alexnet/run.log'
}

case $action in
  create)
    kind=()
    if [[ ${PREEMPTIBLE:-false} == true ]]; then kind=(--spot); fi
    do_it "${tpu[@]}" create "$NAME" --zone="$ZONE" --accelerator-type="$ACCELERATOR" --version="$RUNTIME" "${kind[@]}" \
      "${arguments[@]}"
    ;;
  copy)
    folder=$(mktemp -d)
    trap 'rm -r "$folder"' EXIT
    archive=$folder/alexnet.tar
    do_it git archive --output="$archive" HEAD
    do_it "${tpu[@]}" scp "$archive" "$NAME:alexnet.tar" --zone="$ZONE" --worker=all
    # The VM images have a Python older than 3.11; uv installs a newer one.
    on all 'mkdir -p alexnet && tar -xf alexnet.tar -C alexnet && python3 -m pip install --user --quiet uv &&
      ~/.local/bin/uv venv --quiet --allow-existing --python=3.12 venv &&
      cd alexnet && ~/.local/bin/uv pip install --quiet --python=../venv -r requirements.txt ".[tpu,gcs]"'
    ;;
  run)
    # Detached: a broken connection does not end a run of days.
    command=(../venv/bin/python -u -m alexnet_jax.main --distributed=on "--workdir=$WORKDIR" "${arguments[@]}")
    running="test -e pid && kill -s 0 \$(cat pid) 2>/dev/null"
    refusal="echo 'error: a run is under way here; show it by log, end it by stop' >&2; exit 2"
    start="{ nohup ${command[*]@Q} >> run.log 2>&1 < /dev/null & } && echo \$! > pid"
    on all "cd alexnet && if $running; then $refusal; fi && $start"
    show_log
    ;;
  log) show_log ;;
  stop) on all "kill -s TERM \$(cat alexnet/pid)" ;;
  fetch)
    do_it mkdir -p runs
    do_it gcloud storage cp --recursive "$WORKDIR" runs/
    ;;
  delete) do_it "${tpu[@]}" delete "$NAME" --zone="$ZONE" --quiet ;;
  *)
    echo "error: '$action' is none of create, copy, run, log, stop, fetch, delete" >&2
    exit 2
    ;;
esac
