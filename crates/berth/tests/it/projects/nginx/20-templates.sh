#!/bin/sh
# Fills the variables of the environment into the templates of configurations.
set -eu
for template in /etc/nginx/templates/*.template; do
    name=$(basename "$template" .template)
    envsubst '$GREETING' < "$template" > "/etc/nginx/conf.d/$name"
done
