#!/bin/bash
# manage_servers.sh

BASE_URL="http://localhost"

add_server() {
    local host=$1
    local port=$2
    local weight=${3:-1}
    local max_conns=${4:-1000}
    
    echo "Adding server: $host:$port"
    curl -s -X POST "$BASE_URL/upstream/add" \
        -d "host=$host" \
        -d "port=$port" \
        -d "weight=$weight" \
        -d "max_conns=$max_conns"
    echo
}

refresh_heartbeat() {
    local host=$1
    local port=$2
    echo "Refreshing heartbeat: $host:$port"
    curl -s -X POST "$BASE_URL/upstream/refresh" \
        -d "host=$host" \
        -d "port=$port"
    echo
}

# 批量添加服务器
add_server "192.168.1.101" 8080 1 1000
add_server "192.168.1.102" 8080 2 2000
add_server "192.168.1.103" 8080 1 1500

# 批量刷新心跳
refresh_heartbeat "192.168.1.101" 8080
refresh_heartbeat "192.168.1.102" 8080
refresh_heartbeat "192.168.1.103" 8080

# 查看最终状态
echo "Final server status:"
curl -s "$BASE_URL/upstream/status" | jq .
