#!/bin/bash
# heartbeat_client.sh

# 配置
BASE_URL="http://your-openresty-host"
HOST=""  # 为空则使用客户端IP
PORT="8080"
INTERVAL=20  # 心跳间隔（秒）

echo "Starting heartbeat client for server: ${HOST:-auto}:$PORT"
echo "Heartbeat interval: $INTERVAL seconds"

while true; do
    TIMESTAMP=$(date '+%Y-%m-%d %H:%M:%S')
    
    # 发送心跳请求
    RESPONSE=$(curl -s -X POST "$BASE_URL/upstream/refresh" \
        -d "host=$HOST" \
        -d "port=$PORT")
    
    # 解析响应
    CODE=$(echo "$RESPONSE" | grep -o '"code":[0-9]*' | cut -d: -f2)
    MESSAGE=$(echo "$RESPONSE" | grep -o '"message":"[^"]*"' | cut -d: -f2- | tr -d '"')
    
    if [ "$CODE" = "200" ]; then
        echo "[$TIMESTAMP] ✓ Heartbeat successful: $MESSAGE"
    else
        echo "[$TIMESTAMP] ✗ Heartbeat failed: $MESSAGE"
        
        # 如果服务器不存在，尝试重新注册
        if echo "$MESSAGE" | grep -q "not found"; then
            echo "[$TIMESTAMP] Attempting to register server..."
            REGISTER_RESPONSE=$(curl -s -X POST "$BASE_URL/upstream/add" \
                -d "host=$HOST" \
                -d "port=$PORT" \
                -d "weight=1")
            
            REGISTER_CODE=$(echo "$REGISTER_RESPONSE" | grep -o '"code":[0-9]*' | cut -d: -f2)
            if [ "$REGISTER_CODE" = "200" ]; then
                echo "[$TIMESTAMP] ✓ Server registered successfully"
            else
                echo "[$TIMESTAMP] ✗ Failed to register server"
            fi
        fi
    fi
    
    sleep $INTERVAL
done
