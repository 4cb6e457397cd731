#!/bin/sh
# Manage the servers of dynbalance with curl alone.
#
#   manage_servers.sh add HOST PORT [WEIGHT [MAX_CONNS]]
#   manage_servers.sh remove HOST PORT
#   manage_servers.sh enable HOST PORT
#   manage_servers.sh disable HOST PORT
#   manage_servers.sh refresh HOST PORT          a heartbeat
#   manage_servers.sh status
#   manage_servers.sh                            adds and refreshes the batch below
#
# HOST "" is this machine's address as dynbalance sees it. From the environment:
#   BASE_URL  where the admin API is   (http://127.0.0.1:8081)
#   UPSTREAM  the upstream's name      (default)
#   HOST, PORT  of a command that is given none
#   DYNBALANCE_TOKEN  a bearer token, if the API asks for one
#
# Prints the answers as they come (status through jq, if there is one). Exit
# status: 0 done, 1 refused, 2 wrong usage, 3 no answer.
set -u

BASE_URL=${BASE_URL:-http://127.0.0.1:8081}
UPSTREAM=${UPSTREAM:-default}

usage() {
    sed -n '/^#   manage_servers/s/^#   //p' "$0" >&2
    exit 2
}

# What curl reads, so that no list of processes shows the token.
credentials() {
    [ -z "${DYNBALANCE_TOKEN-}" ] ||
        printf 'header = "Authorization: Bearer %s"\n' "$DYNBALANCE_TOKEN"
}

# call METHOD PATH FIELD...: prints the answer; fails as the answer does.
call() {
    method=$1
    path=$2
    shift 2
    set -- "upstream=$UPSTREAM" "$@"
    for field in "$@"; do
        set -- "$@" --data-urlencode "$field"
        shift
    done
    [ "$method" = POST ] || set -- -G "$@"
    answer=$(credentials | curl -K - -sS --max-time 10 "$@" "$BASE_URL$path") || return 3
    printf '%s\n' "$answer"
    case $answer in
        '{"code":200,'*) return 0 ;;
        *) return 1 ;;
    esac
}

add_server() {
    echo "Adding server: $1:$2"
    call POST /upstream/add "host=$1" "port=$2" "weight=${3:-1}" "max_conns=${4:-1000}"
}

remove_server() {
    echo "Removing server: $1:$2"
    call POST /upstream/remove "host=$1" "port=$2"
}

toggle_server() {
    echo "Server $1:$2: $3"
    call POST /upstream/toggle "host=$1" "port=$2" "action=$3"
}

refresh_heartbeat() {
    echo "Refreshing heartbeat: $1:$2"
    call POST /upstream/refresh "host=$1" "port=$2"
}

status() {
    answer=$(call GET /upstream/status)
    outcome=$?
    if command -v jq >/dev/null 2>&1; then
        printf '%s\n' "$answer" | jq .
    else
        printf '%s\n' "$answer"
    fi
    return "$outcome"
}

batch() {
    failed=0
    for server in "192.168.1.101 8080 1 1000" "192.168.1.102 8080 2 2000" \
        "192.168.1.103 8080 1 1500"; do
        # shellcheck disable=SC2086 # the fields of a line are words on purpose
        add_server $server || failed=$?
    done
    for host in 192.168.1.101 192.168.1.102 192.168.1.103; do
        refresh_heartbeat "$host" 8080 || failed=$?
    done
    echo "Final server status:"
    status || failed=$?
    return "$failed"
}

command=${1-}
[ $# -eq 0 ] || shift
case $command in
    add | remove | enable | disable | refresh)
        [ $# -ge 2 ] || set -- "${1-${HOST-}}" "${PORT-}"
        [ -n "$2" ] || usage
        ;;
esac
case $command in
    add) [ $# -le 4 ] || usage; add_server "$@" ;;
    remove) remove_server "$1" "$2" ;;
    enable | disable) toggle_server "$1" "$2" "$command" ;;
    refresh) refresh_heartbeat "$1" "$2" ;;
    status) status ;;
    "") batch ;;
    *) usage ;;
esac
