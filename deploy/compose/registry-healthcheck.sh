#!/bin/bash
# Healthy when the Confluent-compatible API answers from its database. With bash alone: the image need not have curl.
exec 3<>/dev/tcp/127.0.0.1/8080 || exit 1
printf 'GET /apis/ccompat/v7/subjects HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
read -r -t 3 status <&3
[[ "$status" == *" 200 "* ]]
