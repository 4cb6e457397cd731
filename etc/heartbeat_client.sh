#!/bin/sh
# Keep one server registered with dynbalance: a heartbeat every INTERVAL
# seconds, and a registration whenever dynbalance does not know the server.
#
# From the environment:
#   BASE_URL  where the admin API is            (http://127.0.0.1:8081)
#   HOST      the server's address or name; empty: this machine's address as
#             dynbalance sees it                ()
#   PORT      the server's port                 (8080)
#   INTERVAL  seconds between heartbeats        (20)
#   WEIGHT    the share of work to register for (1)
#   UPSTREAM  the upstream's name               (default)
#   DYNBALANCE_TOKEN  a bearer token, if the API asks for one
#
# Needs curl. Ends at once on TERM, INT and HUP.
set -u

BASE_URL=${BASE_URL:-http://127.0.0.1:8081}
HOST=${HOST:-}
PORT=${PORT:-8080}
INTERVAL=${INTERVAL:-20}
WEIGHT=${WEIGHT:-1}
UPSTREAM=${UPSTREAM:-default}

busy=

finish() {
    trap - TERM INT HUP
    # $! and no variable of ours: a signal may come before that is set. And
    # KILL: a child that was just forked still has our trap and would lose TERM.
    [ -z "$busy" ] || [ -z "${!-}" ] || kill -KILL "$!" 2>/dev/null
    say "Heartbeat client stopped"
    exit 0
}

# A shell looks at a signal only when its foreground child has ended, but at
# once while it waits for a background one.
background() {
    busy=yes
    "$@" &
    wait "$!"
    busy=
}

say() {
    printf '[%s] %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "$*"
}

# What curl reads, so that no list of processes shows the token.
credentials() {
    [ -z "${DYNBALANCE_TOKEN-}" ] ||
        printf 'header = "Authorization: Bearer %s"\n' "$DYNBALANCE_TOKEN"
}

# post PATH FIELD...: sends the fields, leaves the answer's code and message in
# CODE and MESSAGE. Nothing of an answer is ever run or expanded.
post() {
    path=$1
    shift
    for field in "$@"; do
        set -- "$@" --data-urlencode "$field"
        shift
    done
    ANSWER=$(credentials | curl -K - -sS --max-time 10 -X POST "$@" "$BASE_URL$path" 2>&1) || :
    CODE=$(printf '%s' "$ANSWER" | sed -n 's/^{"code":\([0-9]*\),.*/\1/p')
    MESSAGE=$(printf '%s' "$ANSWER" | sed -n 's/^[^,]*,"message":"\([^"]*\)".*/\1/p')
    [ -n "$MESSAGE" ] || MESSAGE=$ANSWER
}

register() {
    say "Registering the server"
    post /upstream/add "upstream=$UPSTREAM" "host=$HOST" "port=$PORT" "weight=$WEIGHT"
    if [ "$CODE" = 200 ]; then
        say "✓ Server registered successfully"
    else
        say "✗ Failed to register server: $MESSAGE"
    fi
}

beat() {
    post /upstream/refresh "upstream=$UPSTREAM" "host=$HOST" "port=$PORT"
    if [ "$CODE" = 200 ]; then
        say "✓ Heartbeat successful: $MESSAGE"
        return
    fi
    say "✗ Heartbeat failed: $MESSAGE"
    case $CODE:$MESSAGE in
        404:Server\ not\ found*) register ;;
    esac
}

trap finish TERM INT HUP

say "Starting heartbeat client for server ${HOST:-auto}:$PORT, every $INTERVAL seconds"
while :; do
    background beat
    background sleep "$INTERVAL"
done
