#!/bin/bash
# Draws the secrets of the cluster at its first start, each into a file that only its user reads.
# What is there stays: the data is locked with it. Runs as root, in MongoDB's image.
#
#   /run/members  keyfile                              of the members
#   /run/nodes    mongodb-uri api-key cluster-secret   of the nodes
#                 client.toml                          of commands in a node's container
set -euo pipefail

members=mongodb
nodes=10001 # docker-compose.yml and Dockerfile name it too

# 256 random bits in hexadecimal digits.
draw() {
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

# Keeps a text as a file of this user, complete or not at all, unless the file is there.
keep() { # user, file, text
    [ -e "$2" ] && return
    rm -f "$2.new"
    (umask 377 && printf %s "$3" >"$2.new")
    chown "$1" "$2.new"
    sync "$2.new"
    mv "$2.new" "$2"
}

key=$(draw) api=$(draw) peers=$(draw) password=$(draw)
keep "$members" /run/members/keyfile "$key"
keep "$nodes" /run/nodes/api-key "$api"
keep "$nodes" /run/nodes/cluster-secret "$peers"
keep "$nodes" /run/nodes/mongodb-uri \
    "mongodb://drumline:$password@m1:27017,m2:27017,m3:27017/?replicaSet=drumline"
keep "$nodes" /run/nodes/client.toml 'api_key_file = "api-key"'
