#!/bin/sh
# Make the role of hosts in an account of nsc, and print how to make the credentials of a host.
# Usage: host.sh ACCOUNT
set -eu
nsc edit signing-key --account "$1" --role sockagent --sk generate \
    --allow-pub 'sockagent.{{name()}},$JS.API.DIRECT.GET.SOCKAGENT.sockagent.{{name()}}' \
    --allow-sub '_INBOX.{{name()}}.>'
echo 'For each host, with every byte of its name except A-Za-z0-9_- as %XX:'
echo "nsc add user --account $1 --name a%2Eexample -K sockagent"
echo "nsc generate creds --account $1 --name a%2Eexample >host.creds"
