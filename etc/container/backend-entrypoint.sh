#!/bin/sh
# The entry point of a backend's container: the backend given as arguments, and
# beside it the agent that keeps it registered.
#
#   ENTRYPOINT ["backend-entrypoint.sh"]
#   CMD ["gunicorn", "--bind", "0.0.0.0:8000", "app"]
#
# From the environment:
#   PORT              the backend's port                          (8000)
#   DYNBALANCE_URL    where the admin API is                      (http://127.0.0.1:8081)
#   DYNBALANCE_TOKEN  of role agent, if the API wants credentials ()
#   AGENT_OPTIONS     further ones: --weight 2 --check http://127.0.0.1:8000/health
#
# On TERM the server first drains and is removed, then the backend gets TERM.
# Its exit status is the container's; when it ends by itself the agent says
# goodbye for it.
set -u

PORT=${PORT:-8000}

"$@" &
backend=$!
# shellcheck disable=SC2086 # options are words on purpose
dynbalancectl heartbeat --port "$PORT" ${AGENT_OPTIONS:-} &
agent=$!

farewell() {
    trap '' TERM INT
    kill -TERM "$agent" 2>/dev/null
    wait "$agent"
    kill -TERM "$backend" 2>/dev/null
}
trap farewell TERM INT

# A signal ends the first wait; the second one hears of the backend's end.
wait "$backend"
status=$?
if kill -0 "$backend" 2>/dev/null; then
    wait "$backend"
    status=$?
fi
kill -TERM "$agent" 2>/dev/null
wait "$agent"
exit "$status"
