#!/bin/sh
# Make the roles of hosts and readers in an account of nsc, and print how to make credentials.
# Usage: host.sh ACCOUNT
set -eu
nsc edit signing-key --account "$1" --role sockagent --sk generate \
    --allow-pub 'sockagent.{{name()}},$JS.API.DIRECT.GET.SOCKAGENT.sockagent.{{name()}}' \
    --allow-sub '_INBOX.{{name()}}.>'
api='$JS.API.CONSUMER'
nsc edit signing-key --account "$1" --role sockagent-reader --sk generate \
    --allow-pub '$JS.API.STREAM.INFO.SOCKAGENT' --allow-pub "$api.CREATE.SOCKAGENT.>" \
    --allow-pub "$api.MSG.NEXT.SOCKAGENT.>" --allow-pub "$api.DELETE.SOCKAGENT.>" \
    --allow-sub '_INBOX.{{name()}}.>'
echo 'For each host, with every byte of its name except A-Za-z0-9_- as %XX:'
echo "nsc add user --account $1 --name a%2Eexample -K sockagent"
echo "nsc generate creds --account $1 --name a%2Eexample >host.creds"
echo 'For each reader:'
echo "nsc add user --account $1 --name reader -K sockagent-reader"
echo "nsc generate creds --account $1 --name reader >reader.creds"
