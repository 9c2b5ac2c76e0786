#!/usr/bin/env bash
# An execution from a shell script, with nothing but curl: what any language without an emitter can do as well.
#
#   export RUNCAST_URL=http://localhost:8080 RUNCAST_TOKEN=…        # a token with the scope events:publish
#   deploy/examples/publish.sh nightly-backup-42 /etc
#
# Producer-Id and Producer-Seq make a repeat harmless: the log remembers a producer's last number and skips what it has.
# So curl may retry as it likes, through any edge, and each event stands in the log once.
set -euo pipefail

execution=$1 folder=$2
producer=${PRODUCER:-$(hostname | tr -c 'A-Za-z0-9_.\n-' '-')-$$}
seq=1

publish() { # publish TYPE DATA: one event
  curl --silent --show-error --fail-with-body --retry 5 --retry-all-errors --max-time 10 --output /dev/null \
    -H "Authorization: Bearer $RUNCAST_TOKEN" -H "Content-Type: application/json" \
    -H "Producer-Id: $producer" -H "Producer-Seq: $seq" \
    --data "{\"type\":\"$1\",\"data\":$2}" "$RUNCAST_URL/api/agent/executions/$execution/events"
  seq=$((seq + 1))
}

started=$(date +%s)
publish execution:started "{\"task\":\"Back up $folder\",\"startedAt\":${started}000,\"attempt\":1}"
publish phase:start '{"phaseId":"measure","phaseName":"Measure"}'
size=$(du -sk "$folder" 2>/dev/null | cut -f1)
publish tool:start "{\"callId\":\"c1\",\"toolName\":\"du\",\"params\":{\"folder\":\"$folder\"}}"
publish tool:complete "{\"callId\":\"c1\",\"toolName\":\"du\",\"result\":{\"kilobytes\":$size},\"duration\":0}"
publish phase:complete '{"phaseId":"measure","phaseName":"Measure"}'

# Several events in one request: one JSON object a line. They are stored together, or, if one is wrong, not at all.
{
  echo '{"type":"progress","data":{"progress":100,"currentAction":"done"}}'
  echo "{\"type\":\"execution:complete\",\"data\":{\"result\":{\"kilobytes\":$size},\"duration\":$(($(date +%s) - started))}}"
} | curl --silent --show-error --fail-with-body --retry 5 --retry-all-errors --max-time 10 --output /dev/null \
  -H "Authorization: Bearer $RUNCAST_TOKEN" -H "Content-Type: application/x-ndjson" \
  -H "Producer-Id: $producer" -H "Producer-Seq: $seq" \
  --data-binary @- "$RUNCAST_URL/api/agent/executions/$execution/events"
