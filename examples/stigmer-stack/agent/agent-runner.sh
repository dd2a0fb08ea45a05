#!/bin/sh
# A stand-in for the agent runner: at every step it asks the LLM for its models, and notes in the volumes of
# its workspace and of its logs that it was there.
: "${STIGMER_LLM_BASE_URL:?says where the LLM is}"
: "${STIGMER_API_KEY:?is the key with which it reaches the server}"
trap 'echo "stopped in good order"; exit 0' TERM INT

echo "agent ready, with a key of ${#STIGMER_API_KEY} characters"
before=
while :; do
    date +%s >/tmp/heartbeat
    if models=$(timeout 2 wget -q -O - "$STIGMER_LLM_BASE_URL/api/tags" 2>/dev/null); then
        now="the LLM has $models"
    else
        now="waiting for the LLM at $STIGMER_LLM_BASE_URL"
    fi
    [ "$now" = "$before" ] || echo "$now"
    before=$now
    date >>"$WORKSPACE_ROOT/steps"
    echo "$now" >>/logs/agent-runner.log
    sleep 1 &
    wait $!
done
